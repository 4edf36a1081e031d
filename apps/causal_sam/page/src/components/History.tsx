import { useEffect, useRef } from 'preact/hooks'
import { moveInHistory, redo, session, undo } from '../state'
import { TEXTS } from '../texts'

export function History() {
  const list = useRef<HTMLOListElement>(null)
  const { steps, position } = session.value ?? { steps: [], position: 0 }
  useEffect(() => {
    // Not by `scrollIntoView`, which would scroll the panel, too.
    const entry = list.current?.children[position] as HTMLElement | undefined
    if (entry) list.current!.scrollTop = entry.offsetTop - (list.current!.clientHeight - entry.offsetHeight) / 2
  }, [steps.length, position])
  return (
    <section aria-labelledby="history">
      <h2 id="history">{TEXTS.history.heading}</h2>
      <div class="line">
        <button disabled={position < 1} title={TEXTS.history.undoHint} onClick={undo}>
          {TEXTS.history.undo}
        </button>
        <button disabled={position + 1 >= steps.length} title={TEXTS.history.redoHint} onClick={redo}>
          {TEXTS.history.redo}
        </button>
      </div>
      <ol class="history" ref={list}>
        {steps.map(({ kind, text }, n) => {
          const shown = kind === 'start' ? TEXTS.history.start : text
          return (
            <li key={n} class={n > position ? 'undone' : ''}>
              <button
                class="link"
                aria-current={n === position ? 'step' : undefined}
                aria-label={TEXTS.history.goTo(shown)}
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
