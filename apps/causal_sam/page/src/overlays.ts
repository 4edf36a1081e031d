/** What is drawn over the slices: borders of masks, the crosshair, the sides of the patient, and the points of a label. */
import type { Run } from './borders'
import { NORMAL } from './grid'
import type { Frame, Tile } from './tiles'
import type { Voxel } from './types'

const CROSSHAIR = '#59bfffb3'
const LETTERS = '#e3e8ee'
const OUTLINE = '#000c'
const INSIDE = '#3cdc6e'
const OUTSIDE = '#ff4646'
/** Pixels of the page from the crosshair's middle to its lines, so that what it points at is seen. */
const GAP = 9
const DOT = 4.5
/** How much is seen of a point on the slice beside. */
const FAINT = 0.35
/** Width of the borders of masks in pixels of the page. */
const BORDER = 1.5
/** Pixels of the page at the left of each view's upper edge that its caption may fill. */
const CAPTION = 140
/** What lies at the left, right, top and bottom of each view. */
const SIDES = { axial: 'RLAP', coronal: 'RLSI', sagittal: 'PASI' } as const

/** A point that prompted a label, as a voxel of the viewer. */
export interface Mark {
  voxel: Voxel
  isInside: boolean
}

/**
 * Draws the borders of masks on a slice: inside of the masks, so that those of neighbours are seen both, along the edges
 * of voxels, and sharp at any magnification.
 *
 * @param slice frame of the whole slice
 * @param size number of pixels of the slice
 * @param ratio pixels of the canvas for each pixel of the page
 */
export function drawBorders(
  context: CanvasRenderingContext2D,
  slice: Frame,
  borders: Map<number, Run[]>,
  [width, height]: readonly [number, number],
  ratio: number,
): void {
  const line = Math.max(1, Math.round(BORDER * ratio))
  const xAt = (x: number) => Math.round(slice.left + (x * slice.width) / width)
  const yAt = (y: number) => Math.round(slice.top + (y * slice.height) / height)
  for (const [pixel, runs] of borders) {
    context.fillStyle = `rgb(${pixel & 255} ${(pixel >> 8) & 255} ${(pixel >> 16) & 255})`
    for (const { side, x, y, length } of runs) {
      const [left, top] = [xAt(x), yAt(y)]
      if (side === 'top') context.fillRect(left, top, xAt(x + length) - left, line)
      else if (side === 'bottom') context.fillRect(left, yAt(y + 1) - line, xAt(x + length) - left, line)
      else if (side === 'left') context.fillRect(left, top, line, yAt(y + length) - top)
      else context.fillRect(xAt(x + 1) - line, top, line, yAt(y + length) - top)
    }
  }
}

/** @param ratio pixels of the canvas for each pixel of the page */
export function drawCrosshair(context: CanvasRenderingContext2D, tile: Tile, at: Voxel, ratio: number): void {
  const { left, top, width, height } = tile.frame
  const [x, y] = middleOf(tile, at).map((n) => Math.round(n) + 0.5) as [number, number]
  const gap = GAP * ratio
  context.strokeStyle = CROSSHAIR
  context.lineWidth = 1
  context.beginPath()
  for (const [from, to] of [
    [left, x - gap],
    [x + gap, left + width],
  ] as const) {
    context.moveTo(from, y)
    context.lineTo(to, y)
  }
  for (const [from, to] of [
    [top, y - gap],
    [y + gap, top + height],
  ] as const) {
    context.moveTo(x, from)
    context.lineTo(x, to)
  }
  context.stroke()
}

/** Letters with a dark outline, which are read on any image and on any mask. */
export function drawSides(context: CanvasRenderingContext2D, { plane, frame }: Tile, ratio: number): void {
  const { left, top, width, height } = frame
  const [atLeft, atRight, atTop, atBottom] = SIDES[plane]
  const edge = 11 * ratio
  context.font = `600 ${13 * ratio}px system-ui, sans-serif`
  context.textAlign = 'center'
  context.textBaseline = 'middle'
  context.fillStyle = LETTERS
  context.strokeStyle = OUTLINE
  context.lineWidth = 3 * ratio
  context.lineJoin = 'round'
  for (const [letter, x, y] of [
    [atLeft!, left + edge, top + height / 2],
    [atRight!, left + width - edge, top + height / 2],
    [atTop!, left + Math.max(width / 2, CAPTION * ratio), top + edge],
    [atBottom!, left + width / 2, top + height - edge],
  ] as const) {
    context.strokeText(letter, x, y)
    context.fillText(letter, x, y)
  }
}

/** Lowest and highest voxel of a box. */
export type Box = readonly [Voxel, Voxel]

/** Points with their signs on the slice that they are on, and faintly on the ones beside it. */
export function drawMarks(
  context: CanvasRenderingContext2D,
  tile: Tile,
  marks: readonly Mark[],
  at: Voxel,
  ratio: number,
): void {
  const normal = NORMAL[tile.plane]
  const radius = DOT * ratio
  for (const { voxel, isInside } of marks) {
    const away = Math.abs(voxel[normal] - at[normal])
    if (away > 1) continue
    const [x, y] = middleOf(tile, voxel)
    context.globalAlpha = away ? FAINT : 1
    context.fillStyle = isInside ? INSIDE : OUTSIDE
    context.strokeStyle = '#000'
    context.lineWidth = ratio
    context.beginPath()
    context.arc(x, y, radius, 0, 2 * Math.PI)
    context.fill()
    context.stroke()
    context.lineWidth = 1.5 * ratio
    context.beginPath()
    context.moveTo(x - radius / 2, y)
    context.lineTo(x + radius / 2, y)
    if (isInside) {
      context.moveTo(x, y - radius / 2)
      context.lineTo(x, y + radius / 2)
    }
    context.stroke()
  }
  context.globalAlpha = 1
}

/** Boxes on the slices that they cross. */
export function drawBoxes(
  context: CanvasRenderingContext2D,
  tile: Tile,
  boxes: readonly Box[],
  at: Voxel,
  ratio: number,
): void {
  const normal = NORMAL[tile.plane]
  context.strokeStyle = INSIDE
  context.lineWidth = 1.5 * ratio
  context.setLineDash([5 * ratio, 4 * ratio])
  for (const [low, high] of boxes) {
    if (at[normal] < low[normal] || at[normal] > high[normal]) continue
    const [x0, y0] = tile.positionOf(low)
    const [x1, y1] = tile.positionOf(high.map((n) => n + 1) as Voxel)
    context.strokeRect(x0, y0, x1 - x0, y1 - y0)
  }
  context.setLineDash([])
}

function middleOf(tile: Tile, voxel: Voxel): [number, number] {
  return tile.positionOf(voxel.map((n) => n + 0.5) as Voxel)
}
