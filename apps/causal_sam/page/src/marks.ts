/** The points and boxes that the current label was segmented from, over the slices. */
import { effect, signal } from '@preact/signals'
import { current, labelOf, opened, pending } from './state'
import type { Voxel } from './types'
import type { Viewer } from './viewer'

export const showsMarks = signal(true)

/** Keeps the points and boxes of a viewer up to date. */
export function followMarks(viewer: Viewer): void {
  effect(() => {
    const label = opened.value && current.value ? labelOf(current.value) : undefined
    const { grid } = viewer
    const answered = (['foreground', 'background'] as const).flatMap((side) =>
      (label?.[side] ?? []).map((voxel) => ({ voxel, isInside: side === 'foreground' })),
    )
    const marks = [...answered, ...pending.value].map((each) => ({ ...each, voxel: grid!.fromFile(each.voxel) }))
    const boxes = (grid ? (label?.boxes ?? []) : []).map((corners) => {
      const [one, other] = corners.map((corner) => grid!.fromFile(corner)) as [Voxel, Voxel]
      const [low, high] = [Math.min, Math.max].map((pick) => one.map((n, axis) => pick(n, other[axis]!)) as Voxel)
      return [low!, high!] as const
    })
    viewer.setMarks(marks, boxes, showsMarks.value)
  })
}
