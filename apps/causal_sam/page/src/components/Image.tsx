import { useEffect, useRef } from 'preact/hooks'
import { Drawing } from '../drawing'
import { listen } from '../keys'
import { layout, opened, setViewer, tool } from '../state'
import { TEXTS } from '../texts'
import { followLabel, showsUncertainty } from '../uncertainty'
import { Viewer } from '../viewer'
import { position } from './Status'

const ZOOM = 1.15

/** The viewer, with a sheet over it that takes the pointer while a tool is chosen. */
export function Image({ focusNote, onReady }: { focusNote: () => void; onReady: () => void }) {
  const frame = useRef<HTMLDivElement>(null)
  const image = useRef<HTMLCanvasElement>(null)
  const over = useRef<SVGSVGElement>(null)
  const viewer = useRef<Viewer>(null)

  useEffect(() => {
    const made = new Viewer(image.current!)
    viewer.current = made
    setViewer(made)
    made.onMove = (voxel, intensity) => (position.value = { voxel: made.grid!.toFile(voxel), intensity })
    frame.current!.addEventListener(
      'wheel',
      (event) => {
        event.preventDefault()
        event.stopPropagation()
        if (event.ctrlKey) return made.zoom(event.deltaY < 0 ? ZOOM : 1 / ZOOM)
        const place = made.placeAt(event)
        if (place) made.scroll(place.plane, event.deltaY < 0 ? 1 : -1)
      },
      { capture: true, passive: false },
    )
    void made.attach().then(() => {
      followLabel(made)
      listen(made, new Drawing(over.current!, made), frame.current!, focusNote)
      onReady()
    })
    // For tests and for users of the console.
    Object.assign(window, { causalSam: made })
  }, [])

  useEffect(() => viewer.current?.setLayout(layout.value), [layout.value])

  return (
    <div ref={frame} class="image" role="application" tabIndex={0} aria-label={TEXTS.viewer.label}>
      <canvas ref={image} />
      <svg ref={over} aria-hidden="true" class={tool.value === 'navigate' || !opened.value ? 'over off' : 'over'}>
        <path />
      </svg>
      {opened.value && showsUncertainty.value && (
        <p class="legend">
          {TEXTS.uncertainty.sure} <i aria-hidden="true" /> {TEXTS.uncertainty.unsure}
        </p>
      )}
      {!opened.value && <p class="nothing">{TEXTS.viewer.nothing}</p>}
    </div>
  )
}
