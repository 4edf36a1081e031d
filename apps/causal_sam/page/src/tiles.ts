/** Where the views lie on the canvas, and which place of the image is where on them. */
import type { Grid, Plane } from './grid'
import { SEEN } from './slices'
import type { Voxel } from './types'

export const LAYOUTS = ['planes', 'all', 'axial', 'coronal', 'sagittal', '3D'] as const
export type Layout = (typeof LAYOUTS)[number]

/** A rectangle on the canvas, in its pixels. */
export interface Frame {
  left: number
  top: number
  width: number
  height: number
}

/** What all views show: the place in their middle, in mm from the middle of the image, and the magnification. */
export interface Focus {
  mm: Voxel
  zoom: number
}

const GAP = 4
/** Least share of the width or height of what is divided, so that no view becomes too small to work on. */
const MIN_SHARE = 0.3
const STEP = 0.02

type Direction = 'columns' | 'rows'

/** Divides a frame in two, one beside or below the other. */
function divide({ left, top, width, height }: Frame, into: Direction, share: number): [Frame, Frame] {
  if (into === 'columns') {
    const first = Math.round((width - GAP) * share)
    return [
      { left, top, width: first, height },
      { left: left + first + GAP, top, width: width - first - GAP, height },
    ]
  }
  const first = Math.round((height - GAP) * share)
  return [
    { left, top, width, height: first },
    { left, top: top + first + GAP, width, height: height - first - GAP },
  ]
}

/** Frames of the three planes, the axial one first, and of the 3D view. */
interface Arrangement {
  planes: [Plane, Frame][]
  solid: Frame | null
}

/** The axial view in one part, and the others in the other. */
function threeViews(whole: Frame, outer: Direction, inner: Direction, share: number, innerShare: number): Arrangement {
  const [axial, rest] = divide(whole, outer, share)
  const [coronal, sagittal] = divide(rest, inner, innerShare)
  return { planes: [['axial', axial], ['coronal', coronal], ['sagittal', sagittal]], solid: null }
}

/** Two rows of two views. */
function fourViews(whole: Frame, share: number, rowShare: number): Arrangement {
  const [left, right] = divide(whole, 'columns', share)
  const [coronal, axial] = divide(left, 'rows', rowShare)
  const [sagittal, solid] = divide(right, 'rows', rowShare)
  return { planes: [['axial', axial], ['coronal', coronal], ['sagittal', sagittal]], solid }
}

/**
 * The frames of the slices of a layout, the axial one first, and that of the 3D view.
 *
 * Planes share the canvas so that all of them are drawn large: the product of their areas is as large as can be. Their
 * sum would be largest with one large view and two tiny ones.
 *
 * @param mm size of the image along the axes of the viewer
 * @param strip room to the right of each slice, for its slider
 */
export function arrange(layout: Layout, width: number, height: number, mm: Voxel, strip: number): Arrangement {
  const whole = { left: 0, top: 0, width, height }
  if (layout === '3D') return { planes: [], solid: whole }
  const withStrip = ({ planes, solid }: Arrangement): Arrangement => ({
    planes: planes.map(([plane, frame]) => [plane, { ...frame, width: Math.max(frame.width - strip, 1) }]),
    solid,
  })
  if (layout !== 'all' && layout !== 'planes') return withStrip({ planes: [[layout, whole]], solid: null })
  let best: Arrangement | null = null
  let most = -1
  for (const share of SHARES)
    for (const other of SHARES) {
      const found =
        layout === 'all'
          ? [fourViews(whole, share, other)]
          : DIRECTIONS.map(([outer, inner]) => threeViews(whole, outer, inner, share, other))
      for (const each of found.map(withStrip)) {
        const product = drawn(each, mm)
        if (product > most) [best, most] = [each, product]
      }
    }
  return best!
}

const SHARES = Array.from({ length: Math.round((1 - 2 * MIN_SHARE) / STEP) + 1 }, (_, n) => MIN_SHARE + n * STEP)
const DIRECTIONS: [Direction, Direction][] = [
  ['columns', 'rows'],
  ['rows', 'columns'],
  ['columns', 'columns'],
  ['rows', 'rows'],
]

/**
 * Product of the areas that the slices fill, that of the axial one twice, on which most of the work is done; the 3D view,
 * which turns, fills a square.
 */
function drawn({ planes, solid }: Arrangement, mm: Voxel): number {
  const areas = planes.map(([plane, frame]) => {
    const { u, v } = SEEN[plane]
    const area = fitOf(frame, mm[u], mm[v]) ** 2 * mm[u] * mm[v]
    return plane === 'axial' ? area ** 2 : area
  })
  return areas.reduce((product, area) => product * area, solid ? Math.min(solid.width, solid.height) ** 2 : 1)
}

/** Pixels for each mm at which a rectangle in mm fills a frame. */
function fitOf({ width, height }: Frame, across: number, down: number): number {
  return Math.min(width / across, height / down)
}

/** One view: a plane of the image in a frame. */
export class Tile {
  constructor(
    readonly plane: Plane,
    readonly frame: Frame,
    private readonly grid: Grid,
    private readonly focus: Focus,
  ) {}

  /** Pixels of the canvas for each mm. */
  get scale(): number {
    const { u, v } = SEEN[this.plane]
    const { size, spacing } = this.grid
    return fitOf(this.frame, size[u] * spacing[u], size[v] * spacing[v]) * this.focus.zoom
  }

  /** Position on the canvas of a place, in voxels of the viewer counted from the outer side of the first one. */
  positionOf(place: Voxel): [number, number] {
    const { u, v, isMirrored } = SEEN[this.plane]
    const right = this.mmOf(place[u], u) * (isMirrored ? -1 : 1)
    return [this.middle[0] + right * this.scale, this.middle[1] - this.mmOf(place[v], v) * this.scale]
  }

  /** The place at a position on the canvas on the slice of a voxel; null outside of the view or of the image. */
  placeAt([x, y]: [number, number], voxel: Voxel): Voxel | null {
    const { left, top, width, height } = this.frame
    if (x < left || y < top || x >= left + width || y >= top + height) return null
    const { u, v, isMirrored } = SEEN[this.plane]
    const { size, spacing } = this.grid
    const right = ((x - this.middle[0]) / this.scale) * (isMirrored ? -1 : 1)
    const up = (this.middle[1] - y) / this.scale
    const place: Voxel = [...voxel]
    place[u] = Math.floor((right + this.focus.mm[u]) / spacing[u] + size[u] / 2)
    place[v] = Math.floor((up + this.focus.mm[v]) / spacing[v] + size[v] / 2)
    return place.every((n, axis) => n >= 0 && n < size[axis as 0]) ? place : null
  }

  /** Frame of the whole slice on the canvas, which may reach beyond the view. */
  get slice(): Frame {
    const { u, v } = SEEN[this.plane]
    const { size } = this.grid
    const ends = [this.positionOf([0, 0, 0]), this.positionOf(size)] as const
    return {
      left: Math.min(ends[0][0], ends[1][0]),
      top: Math.min(ends[0][1], ends[1][1]),
      width: size[u] * this.grid.spacing[u] * this.scale,
      height: size[v] * this.grid.spacing[v] * this.scale,
    }
  }

  private get middle(): [number, number] {
    const { left, top, width, height } = this.frame
    return [left + width / 2, top + height / 2]
  }

  private mmOf(n: number, axis: 0 | 1 | 2): number {
    return (n - this.grid.size[axis] / 2) * this.grid.spacing[axis] - this.focus.mm[axis]
  }
}
