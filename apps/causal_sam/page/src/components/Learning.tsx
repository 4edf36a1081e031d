import { useState } from 'preact/hooks'
import { rollBack, startLearning, stopLearning, training, versions } from '../learning'
import { TEXTS } from '../texts'
import type { Version } from '../types'
import { Effort } from './Effort'

export function Learning() {
  const [minutes, setMinutes] = useState(10)
  const now = training.value
  return (
    <section aria-labelledby="learning">
      <details>
        <summary>
          <h2 id="learning">{TEXTS.learning.heading}</h2> {now?.is_running && TEXTS.learning.running(now.share)}
        </summary>
        {now?.is_running ? (
          <>
            <progress aria-label={TEXTS.learning.progress} max={1} value={now.share} />
            <button class="wide" onClick={() => void stopLearning()}>
              {TEXTS.learning.stop}
            </button>
          </>
        ) : (
          <form
            class="line"
            onSubmit={(event) => {
              event.preventDefault()
              void startLearning(minutes)
            }}
          >
            <button>{TEXTS.learning.start}</button>
            <label>
              {TEXTS.learning.minutes}{' '}
              <input
                type="number"
                min={1}
                max={600}
                value={minutes}
                onInput={(event) => setMinutes(event.currentTarget.valueAsNumber)}
              />
            </label>
          </form>
        )}
        {now?.message && (
          <p>
            {now.message} {now.is_running && now.loss != null && TEXTS.learning.loss(now.loss)}
          </p>
        )}
        {versions.value.length ? (
          [...versions.value].reverse().map((version) => <Entry key={version.number} version={version} />)
        ) : (
          <p>{TEXTS.learning.noVersion}</p>
        )}
        <Effort />
      </details>
    </section>
  )
}

function Entry({ version: { number, is_current, status, reason, dice, cases } }: { version: Version }) {
  return (
    <details>
      <summary>
        {TEXTS.learning.version(number)} · {is_current ? TEXTS.learning.current : status} · {TEXTS.learning.cases(cases)}
      </summary>
      {reason && <p>{reason}</p>}
      <table>
        <caption>{TEXTS.learning.dice}</caption>
        <thead>
          <tr>
            <th scope="col">{TEXTS.learning.label}</th>
            <th scope="col">{TEXTS.learning.before}</th>
            <th scope="col">{TEXTS.learning.after}</th>
          </tr>
        </thead>
        <tbody>
          {Object.entries(dice).map(([name, [after, before]]) => (
            <tr key={name}>
              <th scope="row">{name}</th>
              <td>{before?.toFixed(2) ?? '–'}</td>
              <td>{after.toFixed(2)}</td>
            </tr>
          ))}
        </tbody>
      </table>
      {!is_current && status === 'published' && (
        <button onClick={() => void rollBack(number)}>{TEXTS.learning.rollback(number)}</button>
      )}
    </details>
  )
}
