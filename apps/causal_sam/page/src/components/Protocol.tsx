import { useRef } from 'preact/hooks'
import { checkProtocol, confirmRule, previewRule } from '../protocol'
import { checked, maskKeys, opened, preview, previewedRule, protocol } from '../state'
import { TEXTS } from '../texts'
import type { RuleCheck } from '../types'
import { Plan } from './Plan'

/** The rules of the protocol, and how the masks of the case keep them; nothing where there are no rules. */
export function Protocol() {
  const check = useRef<HTMLButtonElement>(null)
  const rules = protocol.value?.rules ?? []
  if (!rules.length && !checked.value) return null
  const result = checked.value?.result
  return (
    <section aria-labelledby="protocol">
      <details>
        <summary>
          <h2 id="protocol">{TEXTS.protocol.heading}</h2>
        </summary>
        <button ref={check} class="wide" disabled={!opened.value} onClick={() => void checkProtocol()}>
          {result ? TEXTS.protocol.checkAgain : TEXTS.protocol.check}
        </button>
        {result && checked.value!.keys !== maskKeys.value && <p>{TEXTS.protocol.stale}</p>}
        <ul class="rules">
          {result
            ? result.rules.map((each) => <Rule key={each.rule} check={each} leave={() => check.current?.focus()} />)
            : rules.map(({ rule, line, text }) => (
                <li key={rule} title={TEXTS.protocol.line(line)}>
                  {text}
                </li>
              ))}
        </ul>
      </details>
    </section>
  )
}

function Rule({ check, leave }: { check: RuleCheck; leave: () => void }) {
  const { rule, line, text, status, question, missing, acts } = check
  const failing = acts.filter(({ holds }) => !holds)
  return (
    <li title={TEXTS.protocol.line(line)}>
      {text} <small class={`status-${status.replace(' ', '-')}`}>{TEXTS.protocol.status[status]}</small>
      {question && <p>{question}</p>}
      {status === 'no mask' && <p>{TEXTS.protocol.none(missing.join(', '))}</p>}
      {failing.map(({ sentence, exact, gained_ml, lost_ml, problem }) => (
        <p key={sentence}>
          {problem ?? (
            <>
              {sentence}: <span class="gained">{gained_ml > 0 && TEXTS.note.gained(gained_ml)}</span>{' '}
              <span class="lost">{lost_ml > 0 && TEXTS.note.lost(lost_ml)}</span>{' '}
              {!exact && <small>{TEXTS.protocol.model}</small>}
            </>
          )}
        </p>
      ))}
      {failing.some(({ problem }) => !problem) && previewedRule.value !== rule && (
        <button aria-label={TEXTS.protocol.repairRule(text)} onClick={() => void previewRule(rule)}>
          {TEXTS.protocol.repair}
        </button>
      )}
      {preview.value && previewedRule.value === rule && <Plan onConfirm={() => void confirmRule()} leave={leave} />}
    </li>
  )
}
