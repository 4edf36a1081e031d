/** The viewer: NiiVue with the masks as its drawing, and places on its canvas as voxels of the image. */
import { DRAG_MODE, MULTIPLANAR_TYPE, NVImage, Niivue, SHOW_RENDER, SLICE_TYPE } from '@niivue/niivue'
import { Grid, NORMAL, type Plane } from './grid'
import { LabelMap } from './labelmap'
import type { OpenedCase, Voxel } from './types'

export const LAYOUTS = {
  all: SLICE_TYPE.MULTIPLANAR,
  axial: SLICE_TYPE.AXIAL,
  coronal: SLICE_TYPE.CORONAL,
  sagittal: SLICE_TYPE.SAGITTAL,
  '3D': SLICE_TYPE.RENDER,
} as const
export type Layout = keyof typeof LAYOUTS
const PLANES: Plane[] = ['axial', 'coronal', 'sagittal']
const DT_UINT8 = 2 // of NIfTI
const OVERLAY_COLOURS = 'inferno'
const OVERLAY_OPACITY = 0.7
const MIN_ZOOM = 0.5
const MAX_ZOOM = 12

/** A voxel of the viewer, and the plane of the view that shows it. */
export interface Place {
  voxel: Voxel
  plane: Plane
}

export class Viewer {
  private readonly niivue: Niivue
  /** The masks of the open case. */
  labels: LabelMap | null = null
  grid: Grid | null = null
  onMove: (voxel: Voxel, intensity: number) => void = () => undefined

  constructor(private readonly canvas: HTMLCanvasElement) {
    this.niivue = new Niivue({
      backColor: [0.05, 0.06, 0.08, 1],
      crosshairColor: [0.35, 0.75, 1, 0.7],
      crosshairWidth: 0.5,
      fontColor: [0.75, 0.8, 0.85, 1],
      isRadiologicalConvention: true,
      multiplanarLayout: MULTIPLANAR_TYPE.GRID,
      multiplanarShowRender: SHOW_RENDER.ALWAYS,
      multiplanarPadPixels: 4,
      dragAndDropEnabled: false,
      loadingText: '',
      logLevel: 'error',
      // As in OHIF: the left button sets the crosshair, the middle one pans, the right one changes the window.
      mouseEventConfig: {
        leftButton: { primary: DRAG_MODE.crosshair },
        centerButton: DRAG_MODE.pan,
        rightButton: DRAG_MODE.windowing,
      },
    })
  }

  async attach(): Promise<void> {
    await this.niivue.attachToCanvas(this.canvas)
    this.niivue.onLocationChange = () => this.moved()
    this.niivue.drawOpacity = 0.45
  }

  /** Shows the image of a case, without masks. */
  async show(opened: OpenedCase, file: ArrayBuffer): Promise<void> {
    const nv = this.niivue
    this.labels = this.grid = null
    nv.closeDrawing()
    while (nv.volumes.length) nv.removeVolumeByIndex(0)
    const [cal_min, cal_max] = opened.window
    nv.addVolume(await NVImage.loadFromUrl({ url: 'image.nii', name: 'image.nii', buffer: file, cal_min, cal_max }))
    nv.createEmptyDrawing()
    this.grid = new Grid(opened)
    this.labels = new LabelMap(this.grid, nv.drawBitmap!)
    nv.setPan2Dxyzmm([0, 0, 0, 1])
    this.moveTo(this.grid.size.map((n) => Math.floor(n / 2)) as Voxel)
  }

  /** Draws the masks again after they changed. */
  refresh(): void {
    this.niivue.refreshDrawing(true)
  }

  /** Sets colours of values of the masks, for the next `refresh`; values that are left out are not shown. */
  setColours(colours: Map<number, [number, number, number]>): void {
    const lut = new Uint8ClampedArray(4 * 256)
    for (const [value, [r, g, b]] of colours) lut.set([r, g, b, 255], 4 * value)
    this.niivue.drawLut = { lut, labels: [] }
    this.niivue.refreshColormaps()
  }

  setOpacity(opacity: number): void {
    this.niivue.drawOpacity = opacity
    this.niivue.drawScene()
  }

  setWindow([low, high]: [number, number]): void {
    const image = this.niivue.volumes[0]
    if (!image) return
    image.cal_min = low
    image.cal_max = high
    this.niivue.updateGLVolume()
  }

  /** Shows values of 0 to 255, one for each voxel, in colours over the image; null for none. */
  showOverlay(values: Uint8Array | null): void {
    const nv = this.niivue
    while (nv.volumes.length > 1) nv.removeVolumeByIndex(1)
    if (!values || !nv.volumes[0]) return
    const overlay = nv.volumes[0].clone()
    overlay.id = 'overlay'
    Object.assign(overlay.hdr!, { datatypeCode: DT_UINT8, numBitsPerVoxel: 8, scl_slope: 1, scl_inter: 0 })
    overlay.img = values
    overlay.frame4D = 0
    Object.assign(overlay, { colormap: OVERLAY_COLOURS, opacity: OVERLAY_OPACITY, cal_min: 1, cal_max: 255 })
    Object.assign(overlay, { global_min: 0, global_max: 255, robust_min: 0, robust_max: 255 })
    nv.addVolume(overlay)
  }

  setLayout(layout: Layout): void {
    this.niivue.setSliceType(LAYOUTS[layout])
  }

  /** Voxel of the crosshair. */
  get crosshair(): Voxel {
    const { crosshairPos } = this.niivue.scene
    return this.grid!.size.map((n, axis) => clamp(Math.floor(crosshairPos[axis as 0] * n), 0, n - 1)) as Voxel
  }

  moveTo(voxel: Voxel): void {
    this.niivue.scene.crosshairPos = this.niivue.vox2frac(voxel)
    this.niivue.drawScene()
    this.moved()
  }

  moveBy(x: number, y: number, z: number): void {
    this.niivue.moveCrosshairInVox(x, y, z)
  }

  /** Goes to other slices of a plane. */
  scroll(plane: Plane, slices: number): void {
    const by: Voxel = [0, 0, 0]
    by[NORMAL[plane]] = slices
    this.moveBy(...by)
  }

  zoom(factor: number): void {
    const [x, y, z, zoom] = this.niivue.scene.pan2Dxyzmm as unknown as [number, number, number, number]
    this.niivue.setPan2Dxyzmm([x, y, z, clamp(zoom * factor, MIN_ZOOM, MAX_ZOOM)])
  }

  /** Place at a position of the pointer on the page; null outside of the slices. */
  placeAt(event: { clientX: number; clientY: number }): Place | null {
    const nv = this.niivue
    if (!this.grid || !nv.volumes.length) return null
    const frame = this.canvas.getBoundingClientRect()
    const ratio = this.canvas.width / frame.width
    const position = [(event.clientX - frame.left) * ratio, (event.clientY - frame.top) * ratio]
    const view = nv.screenSlices[nv.tileIndex(position[0]!, position[1]!)]
    const plane = view && PLANES[view.axCorSag]
    if (!plane) return null
    const at = nv.canvasPos2frac(position)
    if (at[0] < 0) return null
    const voxel = this.grid.size.map((n, axis) => clamp(Math.floor(at[axis as 0] * n), 0, n - 1)) as Voxel
    return { voxel, plane }
  }

  /** Position on the page of a voxel, for tests and for pictures of what is drawn; null where no slice shows it. */
  positionOf(voxel: Voxel): { x: number; y: number } | null {
    const position = this.niivue.frac2canvasPos(this.niivue.vox2frac(voxel))
    if (!position) return null
    const frame = this.canvas.getBoundingClientRect()
    const ratio = this.canvas.width / frame.width
    return { x: frame.left + position[0]! / ratio, y: frame.top + position[1]! / ratio }
  }

  private moved(): void {
    if (!this.grid) return
    const voxel = this.crosshair
    this.onMove(voxel, this.niivue.volumes[0]?.getValue(...voxel) ?? NaN)
  }
}

function clamp(n: number, least: number, most: number): number {
  return Math.min(Math.max(n, least), most)
}
