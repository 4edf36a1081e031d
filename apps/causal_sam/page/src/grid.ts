/**
 * Voxels of the image file and voxels of the viewer.
 *
 * The server speaks of voxels (i, j, k) in the order of the file; the viewer's image runs to right, anterior and
 * superior. Only axes are swapped and flipped between the two, so both ways are exact.
 */
import type { OpenedCase, Voxel } from './types'

/** Axis of the viewer's image perpendicular to each plane. */
export const NORMAL = { axial: 2, coronal: 1, sagittal: 0 } as const
export type Plane = keyof typeof NORMAL
/** Whether slices are counted in the direction of the viewer's axis. */
const COUNTS_UP = { axial: false, coronal: true, sagittal: false } as const

export class Grid {
  /** Number of voxels of the viewer's image along its axes. */
  readonly size: Voxel = [0, 0, 0]
  /** Voxel sizes of the viewer's image in mm. */
  readonly spacing: Voxel = [0, 0, 0]
  /** Offset in the viewer's image of one step along each axis of the file, and of the file's first voxel. */
  readonly steps: Voxel = [0, 0, 0]
  readonly origin: number

  constructor(private readonly image: Pick<OpenedCase, 'shape' | 'spacing' | 'axes' | 'axis'>) {
    image.axes.forEach(([to], axis) => {
      this.size[to as 0] = image.shape[axis as 0]
      this.spacing[to as 0] = image.spacing[axis as 0]
    })
    const strides = [1, this.size[0], this.size[0] * this.size[1]]
    let origin = 0
    image.axes.forEach(([to, sign], axis) => {
      const stride = strides[to]!
      this.steps[axis as 0] = sign * stride
      if (sign < 0) origin += (image.shape[axis as 0] - 1) * stride
    })
    this.origin = origin
  }

  /** Voxel of the file at a voxel of the viewer. */
  toFile(viewer: Voxel): Voxel {
    return this.image.axes.map(([to, sign], axis) => {
      const n = viewer[to as 0]
      return sign < 0 ? this.image.shape[axis as 0] - 1 - n : n
    }) as Voxel
  }

  /** Voxel of the viewer at a voxel of the file. */
  fromFile(file: Voxel): Voxel {
    const viewer: Voxel = [0, 0, 0]
    this.image.axes.forEach(([to, sign], axis) => {
      const n = file[axis as 0]
      viewer[to as 0] = sign < 0 ? this.image.shape[axis as 0] - 1 - n : n
    })
    return viewer
  }

  /** Number of a slice as OHIF and notes count it: from 1, axial slices from the head. */
  numberOf(plane: Plane, index: number): number {
    return COUNTS_UP[plane] ? index + 1 : this.size[NORMAL[plane]] - index
  }

  /** Index of a slice with a number. */
  indexOf(plane: Plane, number: number): number {
    return COUNTS_UP[plane] ? number - 1 : this.size[NORMAL[plane]] - number
  }

  /** Axis of the file perpendicular to a plane. */
  fileAxis(plane: Plane): number {
    return this.image.axes.findIndex(([to]) => to === NORMAL[plane])
  }

  /** The plane to ask the server for; null where it is the one that is segmented in any case. */
  planeToAsk(plane: Plane): Plane | null {
    return this.fileAxis(plane) === this.image.axis ? null : plane
  }
}
