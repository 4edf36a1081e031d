/** Smaller copies of the image and of the masks, for the 3D view. */
import type { Voxels } from './nifti'
import type { Voxel } from './types'

/** Most voxels along an axis: more would make the 3D view slow where a program draws in place of a graphics card. */
const MAX_SIDE = 128

/** Which voxels are kept: every so many along each axis. */
export interface Reduction {
  steps: Voxel
  size: Voxel
}

export function reductionOf(size: Voxel): Reduction {
  const steps = size.map((n) => Math.ceil(n / MAX_SIDE)) as Voxel
  return { steps, size: size.map((n, axis) => Math.ceil(n / steps[axis as 0])) as Voxel }
}

/** The voxels that are kept, each changed by `change`. */
export function reduced(
  voxels: Voxels,
  size: Voxel,
  { steps, size: [nx, ny, nz] }: Reduction,
  change: (value: number) => number,
): Uint8Array {
  const made = new Uint8Array(nx * ny * nz)
  let n = 0
  for (let z = 0; z < nz; z++)
    for (let y = 0; y < ny; y++) {
      let at = size[0] * (y * steps[1] + size[1] * z * steps[2])
      for (let x = 0; x < nx; x++, at += steps[0]) made[n++] = change(voxels[at]!)
    }
  return made
}
