import { useRef } from 'preact/hooks'
import { moveInHistory, redo, session, undo } from '../state'
import { TEXTS } from '../texts'
import { useEntryInView } from './scrolling'

/** Undo and redo, at a place that nothing else moves. */
export function Steps() {
  const { steps, position } = session.value ?? { steps: [], position: 0 }
  return (
    <div role="group" aria-label={TEXTS.history.heading}>
      <button disabled={position < 1} title={TEXTS.history.undoHint} onClick={undo}>
        {TEXTS.history.undo}
      </button>{' '}
      <button disabled={position + 1 >= steps.length} title={TEXTS.history.redoHint} onClick={redo}>
        {TEXTS.history.redo}
      </button>
    </div>
  )
}

export function History() {
  const list = useRef<HTMLOListElement>(null)
  const { steps, position } = session.value ?? { steps: [], position: 0 }
  useEntryInView(list, position, steps.length)
  return (
    <section class="steps" aria-labelledby="history">
      <h2 id="history">{TEXTS.history.heading}</h2>
      <ol class="history" ref={list}>
        {steps.map(({ kind, text }, n) => {
          const shown = kind === 'start' ? TEXTS.history.start : text
          return (
            <li key={n} class={n > position ? 'undone' : ''}>
              <button
                class="link"
                aria-current={n === position ? 'step' : undefined}
                aria-label={TEXTS.history.goTo(shown)}
                title={shown}
                onClick={() => void moveInHistory(n)}
              >
                {shown}
              </button>
            </li>
          )
        })}
      </ol>
    </section>
  )
}
