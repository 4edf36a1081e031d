import { useEffect, useRef, useState } from 'preact/hooks'
import { casePath, load } from '../api'
import { cases, openCase, opened } from '../state'
import { TEXTS } from '../texts'
import type { Case } from '../types'

export function Cases() {
  const [search, setSearch] = useState('')
  const all = cases.value
  const found = all?.filter(({ id }) => id.toLowerCase().includes(search.trim().toLowerCase())) ?? []
  return (
    <>
      <h2>{TEXTS.cases.heading}</h2>
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

function Entry({ case: { id, state, by, is_here, modality } }: { case: Case }) {
  const who = by.map((name) => name.replace(/^.*(client|user|address) /, '')).join(', ')
  return (
    <li>
      <button
        class="case"
        aria-current={opened.value?.id === id}
        onClick={() => void openCase(id)}
      >
        {is_here ? <Thumbnail id={id} /> : <span class="thumbnail" />}
        <span>
          <strong>{id}</strong>
          <small>
            <span class={`state ${state.replace(' ', '-')}`}>{TEXTS.cases.states[state]}</span>{' '}
            {who && TEXTS.cases.by(who)} {modality}
          </small>
        </span>
      </button>
    </li>
  )
}

/** The middle slice, loaded when it comes into view; by `load`, since an image element cannot sign in. */
function Thumbnail({ id }: { id: string }) {
  const frame = useRef<HTMLSpanElement>(null)
  const [url, setUrl] = useState('')
  useEffect(() => {
    let made = ''
    const observer = new IntersectionObserver(([entry]) => {
      if (!entry?.isIntersecting) return
      observer.disconnect()
      load(casePath(id, 'thumbnail')).then(
        (file) => setUrl((made = URL.createObjectURL(new Blob([file], { type: 'image/png' })))),
        () => undefined, // an image that cannot be read has no thumbnail; opening it says why
      )
    })
    observer.observe(frame.current!)
    return () => {
      observer.disconnect()
      URL.revokeObjectURL(made)
    }
  }, [id])
  return (
    <span class="thumbnail" ref={frame}>
      {url && <img src={url} alt="" />}
    </span>
  )
}
