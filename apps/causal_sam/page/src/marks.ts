/** The points that the current label was segmented from, over the slices. */
import { effect, signal } from '@preact/signals'
import { current, labelOf, opened } from './state'
import type { Viewer } from './viewer'

export const showsMarks = signal(true)

/** Keeps the points of a viewer up to date. */
export function followMarks(viewer: Viewer): void {
  effect(() => {
    const label = opened.value && current.value ? labelOf(current.value) : undefined
    const { grid } = viewer
    const marks = (['foreground', 'background'] as const).flatMap((side) =>
      grid ? (label?.[side] ?? []).map((voxel) => ({ voxel: grid.fromFile(voxel), isInside: side === 'foreground' })) : [],
    )
    viewer.setMarks(marks, showsMarks.value)
  })
}
