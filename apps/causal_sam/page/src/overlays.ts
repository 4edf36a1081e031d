/** What is drawn over the slices: the crosshair, the sides of the patient, and the points that prompted a label. */
import { NORMAL } from './grid'
import type { Tile } from './tiles'
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
/** What lies at the left, right, top and bottom of each view. */
const SIDES = { axial: 'RLAP', coronal: 'RLSI', sagittal: 'PASI' } as const

/** A point that prompted a label, as a voxel of the viewer. */
export interface Mark {
  voxel: Voxel
  isInside: boolean
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
    [atRight!, left + width - 2 * edge, top + height / 2],
    [atTop!, left + width / 2, top + edge],
    [atBottom!, left + width / 2, top + height - edge],
  ] as const) {
    context.strokeText(letter, x, y)
    context.fillText(letter, x, y)
  }
}

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

function middleOf(tile: Tile, voxel: Voxel): [number, number] {
  return tile.positionOf(voxel.map((n) => n + 0.5) as Voxel)
}
