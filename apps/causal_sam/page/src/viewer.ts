/** The viewer: slices of the image and of the masks on a canvas, and on request a 3D view beside them. */
import { bordersOf } from './borders'
import { Grid, NORMAL, type Plane } from './grid'
import { LabelMap } from './labelmap'
import type { Voxels } from './nifti'
import { drawBorders, drawCrosshair, drawBoxes, drawMarks, drawSides, type Box, type Mark } from './overlays'
import { INFERNO, SEEN, paintImage, paintLabels, pixelsOf, wayThrough } from './slices'
import { Solid } from './solid'
import { Tile, arrange, type Focus, type Frame, type Layout } from './tiles'
import type { OpenedCase, Voxel } from './types'

const MIN_ZOOM = 0.5
const MAX_ZOOM = 12
const BACK = '#0d0f14'
const OVERLAY_OPACITY = 0.7
/** Pixels of the page to the right of each view, for its slider. */
const STRIP = 24
const NO_VIEWS = { planes: [], solid: null }

/** A view as the page sees it. */
export interface View {
  plane: Plane
  /** In pixels of the page, from the corner of the viewer. */
  frame: Frame
  /** Number of its slice as viewers and notes count it, and of all its slices. */
  number: number
  count: number
}

/** A voxel of the viewer, and the plane of the view that shows it. */
export interface Place {
  voxel: Voxel
  plane: Plane
}

/** A slice as pixels. */
interface Picture {
  canvas: OffscreenCanvas
  context: OffscreenCanvasRenderingContext2D
  image: ImageData
  pixels: Uint32Array
}

export class Viewer {
  /** The masks of the open case. */
  labels: LabelMap | null = null
  grid: Grid | null = null
  onMove: (voxel: Voxel) => void = () => undefined
  /** Called with a sentence if the 3D view cannot be shown. */
  onProblem: (sentence: string) => void = () => undefined
  /** Called with the views whenever they may have changed. */
  onViews: (views: View[]) => void = () => undefined
  private marks: readonly Mark[] = []
  private boxes: readonly Box[] = []
  private showsMarks = true
  private voxels: Voxels | null = null
  private at: Voxel = [0, 0, 0]
  private window: [number, number] = [0, 1]
  private colours = new Map<number, [number, number, number]>()
  private table = pixelsOf(new Map())
  private opacity = 0.35
  private overlay: Uint8Array | null = null
  private layout: Layout = 'planes'
  private focus: Focus = { mm: [0, 0, 0], zoom: 1 }
  private tiles: Tile[] = []
  private picture: Picture | null = null
  private frame = 0
  private waiting: (() => void)[] = []
  private readonly context: CanvasRenderingContext2D
  private readonly solid: Solid

  /**
   * @param canvas shows the slices
   * @param solid holds the canvas of the 3D view; lies over the other one
   */
  constructor(
    private readonly canvas: HTMLCanvasElement,
    solid: HTMLElement,
  ) {
    this.context = canvas.getContext('2d')!
    this.solid = new Solid(solid, (sentence) => this.onProblem(sentence))
    new ResizeObserver(() => this.resize()).observe(canvas)
    this.resize()
  }

  /** Shows the image of a case, without masks. */
  show(opened: OpenedCase, voxels: Voxels): void {
    this.grid = new Grid(opened)
    this.voxels = voxels
    this.labels = new LabelMap(this.grid, new Uint8Array(voxels.length))
    this.overlay = null
    this.window = opened.window
    this.focus = { mm: [0, 0, 0], zoom: 1 }
    this.arrange()
    this.moveTo(this.grid.size.map((n) => Math.floor(n / 2)) as Voxel)
  }

  /** Draws with the next frame of the browser. */
  refresh(): void {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0
      this.draw()
      this.onViews(this.views())
      for (const tell of this.waiting.splice(0)) tell()
    })
    const { grid, voxels, labels, window, colours, opacity } = this
    if (grid && voxels && labels) this.solid.show({ grid, voxels, bitmap: labels.bitmap, window, colours, opacity })
  }

  /** Waits until what was changed is drawn. */
  drawn(): Promise<void> {
    return new Promise((tell) => (this.frame ? this.waiting.push(tell) : tell()))
  }

  /** Sets colours of values of the masks; values that are left out are not shown. */
  setColours(colours: Map<number, [number, number, number]>): void {
    this.colours = colours
    this.table = pixelsOf(colours)
    this.refresh()
  }

  /** Shows the points that prompted a label. */
  setMarks(marks: readonly Mark[], boxes: readonly Box[], isShown: boolean): void {
    this.marks = marks
    this.boxes = boxes
    this.showsMarks = isShown
    this.refresh()
  }

  setOpacity(opacity: number): void {
    this.opacity = opacity
    this.refresh()
  }

  setWindow(window: [number, number]): void {
    this.window = window
    this.refresh()
  }

  /** Shows values of 0 to 255, one for each voxel, in colours over the image, 0 not at all; null for none. */
  showOverlay(values: Uint8Array | null): void {
    this.overlay = values
    this.refresh()
  }

  /** Moves the window and changes its width, by shares of the width. */
  changeWindow(move: number, widen: number): void {
    const [low, high] = this.window
    const middle = (low + high) / 2 + move * (high - low)
    const half = ((high - low) * Math.max(1 + widen, 0.1)) / 2
    this.setWindow([middle - half, middle + half])
  }

  setLayout(layout: Layout): void {
    this.layout = layout
    this.arrange()
  }

  /** Voxel of the crosshair. */
  get crosshair(): Voxel {
    return [...this.at]
  }

  moveTo(voxel: Voxel): void {
    const { grid } = this
    if (!grid) return
    this.at = voxel.map((n, axis) => clamp(n, 0, grid.size[axis as 0] - 1)) as Voxel
    this.refresh()
    this.onMove(this.crosshair)
  }

  /** Intensity of the image at a voxel. */
  intensityAt([x, y, z]: Voxel): number {
    const { size } = this.grid!
    return this.voxels![x + size[0] * (y + size[1] * z)]!
  }

  moveBy(x: number, y: number, z: number): void {
    this.moveTo([this.at[0] + x, this.at[1] + y, this.at[2] + z])
  }

  /** Goes to other slices of a plane. */
  scroll(plane: Plane, slices: number): void {
    const by: Voxel = [0, 0, 0]
    by[NORMAL[plane]] = slices
    this.moveBy(...by)
  }

  /** Goes to a slice of a plane by its number. */
  goTo(plane: Plane, number: number): void {
    const voxel = this.crosshair
    voxel[NORMAL[plane]] = this.grid!.indexOf(plane, number)
    this.moveTo(voxel)
  }

  zoom(factor: number): void {
    this.focus.zoom = clamp(this.focus.zoom * factor, MIN_ZOOM, MAX_ZOOM)
    this.refresh()
  }

  /** Moves what a view shows by pixels of the page. */
  pan(plane: Plane, right: number, down: number): void {
    const tile = this.tiles.find((each) => each.plane === plane)
    if (!tile) return
    const { u, v, isMirrored } = SEEN[plane]
    const mm = this.ratio / tile.scale
    this.focus.mm[u] -= right * mm * (isMirrored ? -1 : 1)
    this.focus.mm[v] += down * mm
    this.refresh()
  }

  /** Place at a position of the pointer on the page; null outside of the slices. */
  placeAt(event: { clientX: number; clientY: number }): Place | null {
    const box = this.canvas.getBoundingClientRect()
    const position: [number, number] = [(event.clientX - box.left) * this.ratio, (event.clientY - box.top) * this.ratio]
    for (const tile of this.tiles) {
      const voxel = tile.placeAt(position, this.at)
      if (voxel) return { voxel, plane: tile.plane }
    }
    return null
  }

  /** Position on the page of a voxel, for tests and for pictures of what is drawn; null where no slice shows it. */
  positionOf(voxel: Voxel): { x: number; y: number } | null {
    const tile = this.tiles.find(({ plane }) => voxel[NORMAL[plane]] === this.at[NORMAL[plane]])
    if (!tile) return null
    const box = this.canvas.getBoundingClientRect()
    const [x, y] = tile.positionOf(voxel.map((n) => n + 0.5) as Voxel)
    return { x: box.left + x / this.ratio, y: box.top + y / this.ratio }
  }

  /** Pixels of the canvas for each pixel of the page. */
  private get ratio(): number {
    return globalThis.devicePixelRatio
  }

  private views(): View[] {
    const { grid, ratio } = this
    return this.tiles.map(({ plane, frame: { left, top, width, height } }) => ({
      plane,
      frame: { left: left / ratio, top: top / ratio, width: width / ratio, height: height / ratio },
      number: grid!.numberOf(plane, this.at[NORMAL[plane]]),
      count: grid!.size[NORMAL[plane]],
    }))
  }

  private resize(): void {
    this.canvas.width = Math.round(this.canvas.clientWidth * this.ratio)
    this.canvas.height = Math.round(this.canvas.clientHeight * this.ratio)
    this.arrange()
  }

  private arrange(): void {
    const { grid, canvas, ratio } = this
    const mm = grid ? (grid.size.map((n, axis) => n * grid.spacing[axis as 0]) as Voxel) : null
    const { planes, solid } = mm ? arrange(this.layout, canvas.width, canvas.height, mm, STRIP * ratio) : NO_VIEWS
    this.tiles = planes.map(([plane, frame]) => new Tile(plane, frame, grid!, this.focus))
    this.solid.place(solid, ratio)
    this.refresh()
  }

  private draw(): void {
    const { context, canvas } = this
    context.fillStyle = BACK
    context.fillRect(0, 0, canvas.width, canvas.height)
    for (const tile of this.tiles) {
      const { left, top, width, height } = tile.frame
      context.save()
      context.beginPath()
      context.rect(left, top, width, height)
      context.clip()
      this.drawSlice(tile)
      drawCrosshair(context, tile, this.at, this.ratio)
      if (this.showsMarks) {
        drawBoxes(context, tile, this.boxes, this.at, this.ratio)
        drawMarks(context, tile, this.marks, this.at, this.ratio)
      }
      drawSides(context, tile, this.ratio)
      context.restore()
    }
  }

  private drawSlice(tile: Tile): void {
    const { context, grid, voxels, labels } = this
    const way = wayThrough(tile.plane, this.at[NORMAL[tile.plane]], grid!.size)
    const picture = this.pictureOf(way.width, way.height)
    const { left, top, width, height } = tile.slice
    const put = (opacity: number) => {
      context.globalAlpha = opacity
      picture.context.putImageData(picture.image, 0, 0)
      context.drawImage(picture.canvas, 0, 0, way.width, way.height, left, top, width, height)
    }
    paintImage(picture.pixels, way, voxels!, this.window)
    context.imageSmoothingEnabled = true
    put(1)
    context.imageSmoothingEnabled = false
    if (this.overlay) {
      paintLabels(picture.pixels, way, this.overlay, INFERNO)
      put(OVERLAY_OPACITY)
    }
    paintLabels(picture.pixels, way, labels!.bitmap, this.table)
    put(this.opacity)
    context.globalAlpha = 1
    const size = [way.width, way.height] as const
    drawBorders(context, tile.slice, bordersOf(picture.pixels, ...size), size, this.ratio)
  }

  /** Room for the pixels of a slice, which all slices of one size share. */
  private pictureOf(width: number, height: number): Picture {
    const { picture } = this
    if (picture?.image.width === width && picture.image.height === height) return picture
    const canvas = new OffscreenCanvas(width, height)
    const context = canvas.getContext('2d', { willReadFrequently: true })!
    const image = new ImageData(width, height)
    return (this.picture = { canvas, context, image, pixels: new Uint32Array(image.data.buffer) })
  }
}

function clamp(n: number, least: number, most: number): number {
  return Math.min(Math.max(n, least), most)
}
