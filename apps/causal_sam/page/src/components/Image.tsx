import { useEffect, useRef } from 'preact/hooks'
import { stray } from '../acceptance'
import { Drawing, HAS_SIGN } from '../drawing'
import { listen } from '../keys'
import { followMarks } from '../marks'
import { navigate } from '../navigation'
import { layout, opened, removes, setViewer, tool, warn } from '../state'
import { TEXTS } from '../texts'
import type { Voxel } from '../types'
import { followLabel, showsUncertainty } from '../uncertainty'
import { Viewer } from '../viewer'
import { pointed, position } from './Status'
import { StrayParts } from './StrayParts'
import { Views, views } from './Views'

/** The viewer, with a sheet over it that takes the pointer while a tool is chosen. */
export function Image({ focusNote, onReady }: { focusNote: () => void; onReady: () => void }) {
  const frame = useRef<HTMLDivElement>(null)
  const slices = useRef<HTMLCanvasElement>(null)
  const solid = useRef<HTMLDivElement>(null)
  const over = useRef<SVGSVGElement>(null)
  const viewer = useRef<Viewer>(null)

  useEffect(() => {
    const made = new Viewer(slices.current!, solid.current!)
    viewer.current = made
    setViewer(made)
    const describe = (voxel: Voxel) => ({ voxel: made.grid!.toFile(voxel), intensity: made.intensityAt(voxel) })
    made.onMove = (voxel) => (position.value = describe(voxel))
    let pointer: PointerEvent | null = null
    const look = () => {
      const place = pointer && made.placeAt(pointer)
      pointed.value = place && describe(place.voxel)
    }
    frame.current!.addEventListener('pointermove', (event) => {
      pointer = event
      look()
    })
    frame.current!.addEventListener('pointerleave', () => {
      pointer = null
      look()
    })
    made.onProblem = warn
    followLabel(made)
    made.onViews = (now) => {
      views.value = now
      look() // other slices may be under the pointer
    }
    followMarks(made)
    navigate(slices.current!, frame.current!, made)
    listen(made, new Drawing(over.current!, made), frame.current!, focusNote)
    onReady()
    // For tests and for users of the console.
    Object.assign(window, { causalSam: made })
  }, [])

  useEffect(() => viewer.current?.setLayout(layout.value), [layout.value])

  const isOff = tool.value === 'navigate' || !opened.value
  const pointer = isOff ? ['off'] : HAS_SIGN.has(tool.value) ? ['signed', removes.value ? 'remove' : ''] : []
  return (
    <div ref={frame} class="image" role="application" tabIndex={0} aria-label={TEXTS.viewer.label}>
      <canvas ref={slices} class="slices" />
      <svg ref={over} aria-hidden="true" class={['over', ...pointer].join(' ')}>
        <path />
      </svg>
      <div ref={solid} class="solid" hidden>
        <canvas />
      </div>
      {opened.value && showsUncertainty.value && (
        <p class="legend">
          {TEXTS.uncertainty.sure} <i aria-hidden="true" /> {TEXTS.uncertainty.unsure}
        </p>
      )}
      {opened.value && <Views goTo={(plane, number) => viewer.current!.goTo(plane, number)} />}
      {stray.value && <StrayParts />}
      {!opened.value && <p class="nothing">{TEXTS.viewer.nothing}</p>}
    </div>
  )
}
