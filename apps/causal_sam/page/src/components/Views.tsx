import { signal } from '@preact/signals'
import type { Plane } from '../grid'
import { layout } from '../state'
import { TEXTS } from '../texts'
import type { Layout } from '../tiles'
import type { View } from '../viewer'

export const views = signal<View[]>([])
/** The layout before a view was enlarged. */
let before: Layout = 'planes'

function enlarge(plane: Plane): void {
  if (layout.value === plane) layout.value = before
  else {
    before = layout.value
    layout.value = plane
  }
}

/** The slice of each view in words, a slider for it, and a button that enlarges the view. */
export function Views({ goTo }: { goTo: (plane: Plane, number: number) => void }) {
  return (
    <>
      {views.value.map(({ plane, frame, number, count }) => {
        const { left, top, width, height } = frame
        const isLarge = layout.value === plane
        const hint = isLarge ? TEXTS.views.smaller : TEXTS.views.larger(plane)
        return (
          <div key={plane} class="view" style={{ left: `${left}px`, top: `${top}px`, width: `${width}px`, height: `${height}px` }}>
            <span class="caption">{TEXTS.views.slice(TEXTS.layout[plane], number, count)}</span>
            <div class="strip">
              <button aria-label={hint} title={hint} onClick={() => enlarge(plane)}>
                {isLarge ? '⤡' : '⤢'}
              </button>
              <input
                type="range"
                min={1}
                max={count}
                value={number}
                aria-label={TEXTS.views.slider(plane)}
                title={TEXTS.views.slider(plane)}
                onInput={(event) => goTo(plane, event.currentTarget.valueAsNumber)}
                onPointerUp={(event) => event.currentTarget.blur()} // so that keys are those of the tools again
              />
            </div>
          </div>
        )
      })}
    </>
  )
}
