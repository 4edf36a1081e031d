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
/** Share of the width that the axial view has beside the two others. */
const AXIAL_SHARE = 0.62

/** The frames of the slices of a layout, the axial one first, and that of the 3D view. */
export function arrange(layout: Layout, width: number, height: number): { planes: [Plane, Frame][]; solid: Frame | null } {
  const whole = { left: 0, top: 0, width, height }
  if (layout === '3D') return { planes: [], solid: whole }
  if (layout !== 'all' && layout !== 'planes') return { planes: [[layout, whole]], solid: null }
  const column = layout === 'all' ? (width - GAP) / 2 : (width - GAP) * AXIAL_SHARE
  const row = (height - GAP) / 2
  const beside = { left: column + GAP, width: width - column - GAP, height: row }
  const upper = { ...beside, top: 0 }
  const lower = { ...beside, top: row + GAP }
  if (layout === 'planes')
    return {
      planes: [
        ['axial', { ...whole, width: column }],
        ['coronal', upper],
        ['sagittal', lower],
      ],
      solid: null,
    }
  return {
    planes: [
      ['axial', { left: 0, top: row + GAP, width: column, height: row }],
      ['coronal', { left: 0, top: 0, width: column, height: row }],
      ['sagittal', upper],
    ],
    solid: lower,
  }
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
    const fit = Math.min(this.frame.width / (size[u] * spacing[u]), this.frame.height / (size[v] * spacing[v]))
    return fit * this.focus.zoom
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
