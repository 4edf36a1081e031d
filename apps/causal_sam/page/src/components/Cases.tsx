import { useState } from 'preact/hooks'
import { casePath, shownUser } from '../api'
import { cases, openCase, opened, skipped, why } from '../state'
import { TEXTS } from '../texts'
import type { Case } from '../types'
import { Picture } from './Picture'

export function Cases() {
  const [search, setSearch] = useState('')
  const all = cases.value
  const wanted = search.trim().toLowerCase()
  const found = all?.filter(({ id, title }) => `${id} ${title}`.toLowerCase().includes(wanted)) ?? []
  return (
    <>
      <input
        type="search"
        aria-label={TEXTS.cases.search}
        placeholder={TEXTS.cases.search}
        value={search}
        onInput={(event) => setSearch(event.currentTarget.value)}
      />
      <ul class="cases">
        {found.map((each) => (
          <Entry key={each.id} case={each} />
        ))}
      </ul>
      {all && !found.length && <p>{all.length ? TEXTS.cases.none : TEXTS.cases.empty}</p>}
    </>
  )
}

function Entry({ case: { id, title, state, by, is_here, modality } }: { case: Case }) {
  const isOpen = opened.value?.id === id
  const who = by.map(shownUser).join(', ')
  return (
    <li>
      <button
        class="case"
        title={id}
        aria-current={isOpen}
        onClick={() => void openCase(id)}
      >
        {is_here ? <Picture kind="thumbnail" path={casePath(id, 'thumbnail')} /> : <span class="thumbnail" />}
        <span>
          <strong>{title}</strong>
          <small>
            <span class={`state ${state.replace(' ', '-')}`}>{TEXTS.cases.states[state]}</span>{' '}
            {who && TEXTS.cases.by(who)} {state !== 'accepted' && skipped.value.has(id) && TEXTS.cases.skipped}{' '}
            {(modality || (isOpen && opened.value!.modality)) && (
              <span class="modality">{modality || opened.value!.modality}</span>
            )}
          </small>
          {isOpen && why.value && <small class="why">{TEXTS.cases.why(why.value)}</small>}
        </span>
      </button>
    </li>
  )
}
