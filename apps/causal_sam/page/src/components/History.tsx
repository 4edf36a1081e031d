import { moveInHistory, redo, session, undo } from '../state'
import { TEXTS } from '../texts'

export function History() {
  const { steps, position } = session.value ?? { steps: [], position: 0 }
  return (
    <section aria-labelledby="history">
      <h2 id="history">{TEXTS.history.heading}</h2>
      <div class="line">
        <button disabled={position < 1} onClick={undo}>
          {TEXTS.history.undo}
        </button>
        <button disabled={position + 1 >= steps.length} onClick={redo}>
          {TEXTS.history.redo}
        </button>
      </div>
      <ol class="history">
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
