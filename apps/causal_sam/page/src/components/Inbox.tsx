import { useRef } from 'preact/hooks'
import { casePath } from '../api'
import { acceptMasks, inbox, openWithMasks, search, stopSearch } from '../inbox'
import { opened } from '../state'
import { TEXTS } from '../texts'
import type { InboxCase } from '../types'
import { Picture } from './Picture'

export function Inbox() {
  const list = useRef<HTMLUListElement>(null)
  const now = inbox.value
  if (!now) return null
  const { progress } = now
  /** None once the inbox was left, which may be while a case is being accepted. */
  const entries = () => [...(list.current?.querySelectorAll<HTMLButtonElement>('.case') ?? [])]

  /** Accepts a case; the one that takes its place is next. */
  const accept = async (shown: InboxCase, place: number) => {
    await acceptMasks(shown)
    const left = entries()
    left[Math.min(place, left.length - 1)]?.focus()
  }

  const onKeyDown = (event: KeyboardEvent) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return
    const place = entries().findIndex((entry) => entry.parentElement!.contains(event.target as Node))
    const by = { ArrowDown: 1, n: 1, ArrowUp: -1 }[event.key]
    if (by) entries()[place + by]?.focus()
    // Held down, it would accept unseen the cases that take the place.
    else if (event.key === 'a' && !event.repeat && now.cases[place]) void accept(now.cases[place], place)
    else return
    event.preventDefault()
    event.stopPropagation() // these keys mean something else outside of the inbox
  }

  return (
    <>
      {progress.is_running ? (
        <>
          <progress aria-label={TEXTS.inbox.progress} max={progress.total || 1} value={progress.done} />
          <button class="wide" onClick={() => void stopSearch()}>
            {TEXTS.inbox.stop(progress.done, progress.total)}
          </button>
        </>
      ) : (
        <button class="wide" disabled={!now.waiting} title={TEXTS.inbox.searchHint} onClick={() => void search()}>
          {TEXTS.inbox.search(now.waiting)}
        </button>
      )}
      {progress.message && <p role="status">{progress.message}</p>}
      <p class="quiet">{now.guarantee}</p>
      {now.cases.length > 0 && <p class="quiet">{TEXTS.inbox.keys}</p>}
      <ul class="cases" ref={list} onKeyDown={onKeyDown}>
        {now.cases.map((each, place) => (
          <Entry key={each.id} case={each} onAccept={() => void accept(each, place)} />
        ))}
      </ul>
      {!now.cases.length && <p>{TEXTS.inbox.empty}</p>}
    </>
  )
}

function Entry({ case: { id, bound, certainty, labels, missing }, onAccept }: { case: InboxCase; onAccept: () => void }) {
  return (
    <li class="entry">
      <button
        class="case column"
        aria-current={opened.value?.id === id}
        title={TEXTS.inbox.open(id)}
        onClick={() => void openWithMasks(id)}
      >
        <Picture kind="preview" path={casePath(id, 'inbox/picture')} />
        <strong>{id}</strong>
        <span>
          {bound != null ? TEXTS.inbox.bound(bound) : certainty != null ? TEXTS.labels.certainty(certainty) : TEXTS.inbox.nothing}
        </span>
        <small>
          {labels.map(({ name, volume_ml, colour }) => (
            <span key={name} class="found">
              <i style={{ background: colour }} /> {name} {TEXTS.labels.ml(volume_ml)}
            </span>
          ))}
          {missing.length > 0 && TEXTS.inbox.missing(missing.join(', '))}
        </small>
      </button>
      <button class="wide" disabled={!labels.length} aria-label={TEXTS.inbox.acceptCase(id)} onClick={onAccept}>
        {TEXTS.accept.accept}
      </button>
    </li>
  )
}
