/** Strokes that a person draws with the pointer, in voxels of the viewer. */
import { NORMAL, type Plane } from './grid'
import type { Voxel } from './types'

/**
 * The voxels of a stroke on one slice: all that are nearer to its path than a radius.
 *
 * @param path voxels on one slice of the plane, in order
 * @param spacing voxel sizes in mm
 * @param size number of voxels along the axes
 * @param radius in mm; the voxels of the path itself count in any case
 */
export function strokeVoxels(path: Voxel[], plane: Plane, spacing: Voxel, size: Voxel, radius: number): Voxel[] {
  const normal = NORMAL[plane]
  const [u, v] = [0, 1, 2].filter((axis) => axis !== normal) as [number, number]
  const reach = [radius / spacing[u as 0], radius / spacing[v as 0]]
  const found = new Map<number, Voxel>()
  for (const at of alongLine(path)) {
    for (let du = -Math.floor(reach[0]!); du <= reach[0]!; du++)
      for (let dv = -Math.floor(reach[1]!); dv <= reach[1]!; dv++) {
        const isNear = (du * spacing[u as 0]) ** 2 + (dv * spacing[v as 0]) ** 2 <= radius ** 2
        if (!isNear && (du || dv)) continue
        const voxel: Voxel = [...at]
        voxel[u as 0] += du
        voxel[v as 0] += dv
        if (voxel.some((n, axis) => n < 0 || n >= size[axis as 0])) continue
        found.set(voxel[0] + size[0] * (voxel[1] + size[1] * voxel[2]), voxel)
      }
  }
  return [...found.values()]
}

/** The voxels of a path without gaps. */
export function* alongLine(path: Voxel[]): Generator<Voxel> {
  if (path[0]) yield path[0]
  for (let n = 1; n < path.length; n++) {
    const [from, to] = [path[n - 1]!, path[n]!]
    const steps = Math.max(...from.map((value, axis) => Math.abs(to[axis as 0] - value)))
    for (let step = 1; step <= steps; step++)
      yield from.map((value, axis) => Math.round(value + ((to[axis as 0] - value) * step) / steps)) as Voxel
  }
}
