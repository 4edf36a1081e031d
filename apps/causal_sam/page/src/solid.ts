/** The 3D view. Its library is loaded when it is first shown, and it is drawn when the user pauses. */
import type { Niivue } from '@niivue/niivue'
import type { Grid } from './grid'
import type { Voxels } from './nifti'
import { reduced, reductionOf } from './reduced'
import { TEXTS } from './texts'
import type { Frame } from './tiles'

/** Milliseconds without a change after which it is drawn. */
const PAUSE_MS = 300

/** What is shown. */
interface Content {
  grid: Grid
  voxels: Voxels
  bitmap: Uint8Array
  window: [number, number]
  colours: Map<number, [number, number, number]>
  opacity: number
}

export class Solid {
  private content: Content | null = null
  private timer = 0
  private niivue: Promise<Niivue> | null = null
  private last: Promise<void> = Promise.resolve()
  /** The image and the window that it shows. */
  private shown: Pick<Content, 'voxels' | 'window'> | null = null

  /**
   * @param box holds a canvas, which fills it
   * @param onProblem called with a sentence if the view cannot be shown
   */
  constructor(
    private readonly box: HTMLElement,
    private readonly onProblem: (sentence: string) => void,
  ) {}

  /**
   * Shows the view, or hides it.
   *
   * @param frame in pixels of the screen; null hides it
   * @param ratio pixels of the screen for each pixel of the page
   */
  place(frame: Frame | null, ratio: number): void {
    this.box.hidden = !frame
    if (!frame) return
    const { left, top, width, height } = frame
    const sides = { left, top, width, height }
    for (const [side, pixels] of Object.entries(sides)) this.box.style.setProperty(side, `${pixels / ratio}px`)
    this.drawSoon()
  }

  show(content: Content): void {
    this.content = content
    if (!this.box.hidden) this.drawSoon()
  }

  private drawSoon(): void {
    clearTimeout(this.timer)
    this.timer = window.setTimeout(() => {
      this.last = this.last.then(() => this.draw()).catch(() => this.onProblem(TEXTS.viewer.noSolid))
    }, PAUSE_MS)
  }

  private async draw(): Promise<void> {
    const niivue = await (this.niivue ??= this.attach())
    if (this.box.hidden || !this.content) return
    const { grid, voxels, bitmap, window, colours, opacity } = this.content
    const reduction = reductionOf(grid.size)
    if (this.shown?.voxels !== voxels || this.shown.window !== window) {
      this.shown = { voxels, window }
      const [low, high] = window
      const image = reduced(voxels, grid.size, reduction, (value) =>
        Math.max(0, Math.min(255, ((value - low) * 255) / Math.max(high - low, 1e-6))),
      )
      await showImage(niivue, image, grid, reduction)
    }
    niivue.drawBitmap = reduced(bitmap, grid.size, reduction, (value) => value)
    const lut = new Uint8ClampedArray(4 * 256)
    for (const [value, [r, g, b]] of colours) lut.set([r, g, b, 255], 4 * value)
    niivue.drawLut = { lut, labels: [] }
    niivue.drawOpacity = opacity
    niivue.refreshColormaps()
    niivue.refreshDrawing(true)
  }

  private async attach(): Promise<Niivue> {
    if (!new OffscreenCanvas(1, 1).getContext('webgl2')) throw new Error('no WebGL 2')
    const { Niivue, SLICE_TYPE } = await import('@niivue/niivue')
    const niivue = new Niivue({
      backColor: [0.05, 0.06, 0.08, 1],
      show3Dcrosshair: false,
      isOrientCube: false,
      dragAndDropEnabled: false,
      loadingText: '',
      logLevel: 'error',
    })
    await niivue.attachToCanvas(this.box.querySelector('canvas')!)
    niivue.setSliceType(SLICE_TYPE.RENDER)
    return niivue
  }
}

async function showImage(
  niivue: Niivue,
  image: Uint8Array,
  grid: Grid,
  { steps, size }: ReturnType<typeof reductionOf>,
): Promise<void> {
  const { NVImage } = await import('@niivue/niivue')
  const [x, y, z] = [0, 1, 2].map((axis) => grid.spacing[axis as 0] * steps[axis as 0]) as [number, number, number]
  const affine = [x, 0, 0, 0, 0, y, 0, 0, 0, 0, z, 0, 0, 0, 0, 1]
  const UINT8 = 2
  const file = NVImage.createNiftiArray(size, [x, y, z], affine, UINT8, image)
  niivue.closeDrawing()
  while (niivue.volumes.length) niivue.removeVolumeByIndex(0)
  niivue.addVolume(
    await NVImage.loadFromUrl({ url: 'image.nii', name: 'image.nii', buffer: file.buffer as ArrayBuffer, cal_min: 0, cal_max: 255 }),
  )
  niivue.createEmptyDrawing()
}
