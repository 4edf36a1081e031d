// @ts-check
/**
 * The companion's access to OHIF, through the services that OHIF publishes on `window`.
 *
 * The panel of MONAI Label keeps its masks in the segmentation "1"; voxels (i, j, k) are those of the server's image.
 */
import { unpacked } from './api.js'
import { texts } from './texts.js'

/** @typedef {import('./api.js').Label} Label */

const SEGMENTATION = '1'
const POINT_TOOL = 'ProbeMONAILabel'
const BACKGROUND = 'background'
const PANEL = '.monaiLabelPanel'

/** @type {any} */
const ohif = window

/** SeriesInstanceUID of the series in the active viewport; undefined before one is shown. */
export function shownSeries() {
  const { viewportGridService, displaySetService } = ohif.services ?? {}
  const { viewports, activeViewportId } = viewportGridService?.getState() ?? {}
  const [displaySet] = viewports?.get(activeViewportId)?.displaySetInstanceUIDs ?? []
  return displaySet && displaySetService.getDisplaySetByUID(displaySet)?.SeriesInstanceUID
}

/** True in the mode of MONAI Label. */
export const isInMode = () => document.querySelector(PANEL) !== null

/**
 * Show a notification of the viewer.
 * @param {string} message
 * @param {'info' | 'success' | 'error'} type
 */
export function notify(message, type = 'info') {
  ohif.services?.uiNotificationService?.show({ title: texts.title, message, type, duration: 8000 })
}

/** Volume of the masks on screen. */
function maskVolume() {
  const volume = ohif.services?.segmentationService?.getLabelmapVolume(SEGMENTATION)
  if (!volume) {
    throw new Error(texts.notConnected)
  }
  return volume
}

/** @returns {Map<string, number>} label name -> value in the masks on screen */
function segments() {
  const all = ohif.services.segmentationService.getSegmentations()
  const own = all.find((/** @type {any} */ each) => each.segmentationId === SEGMENTATION)
  return new Map(Object.values(own.segments).map((/** @type {any} */ each) => [each.label, each.segmentIndex]))
}

/**
 * Replace the masks of labels on screen; other labels give way where these have voxels.
 * @param {Label[]} labels those without a mask stay as they are
 * @param {string[]} removed names of labels that have no voxel any more
 */
export async function paint(labels, removed) {
  const volume = maskVolume()
  const drawn = labels.flatMap(({ name, mask }) => (mask === null ? [] : [{ name, mask }]))
  if (drawn.some(({ mask }) => mask.shape.some((length, axis) => length !== volume.dimensions[axis]))) {
    throw new Error(texts.otherGrid)
  }
  // Nothing is awaited after the voxels are read, so that no stroke of the user's brush is lost.
  const changed = await Promise.all(drawn.map(async (each) => ({ ...each, inside: await unpacked(each.mask) })))
  const values = segments()
  const voxels = volume.voxelManager.getCompleteScalarDataArray()
  for (const { name } of changed) {
    if (!values.has(name)) {
      const value = Math.max(0, ...values.values()) + 1
      ohif.services.segmentationService.addSegment(SEGMENTATION, { label: name, segmentIndex: value })
      values.set(name, value)
    }
  }
  const cleared = new Set([...changed.map(({ name }) => name), ...removed].map((name) => values.get(name)))
  for (let index = 0; index < voxels.length; index++) {
    if (cleared.has(voxels[index])) {
      voxels[index] = 0
    }
  }
  const [columns, rows] = volume.dimensions
  for (const { name, mask, inside } of changed) {
    const [[i0, j0, k0], [width, height, depth]] = [mask.corner, mask.extent]
    let index = 0
    for (let i = i0; i < i0 + width; i++) {
      for (let j = j0; j < j0 + height; j++) {
        for (let k = k0; k < k0 + depth; k++) {
          if (inside[index++]) {
            voxels[i + columns * (j + rows * k)] = values.get(name)
          }
        }
      }
    }
  }
  volume.voxelManager.setCompleteScalarDataArray(voxels)
  ohif.cornerstone.triggerEvent(
    ohif.cornerstone.eventTarget,
    ohif.cornerstoneTools.Enums.Events.SEGMENTATION_DATA_MODIFIED,
    { segmentationId: SEGMENTATION },
  )
}

/** The masks on screen as the viewer would submit them: one byte a voxel, and the values of the labels in it. */
export function shownMasks() {
  const voxels = Uint8Array.from(maskVolume().voxelManager.getCompleteScalarDataArray())
  const present = new Set(voxels)
  const labels = [...segments()].filter(([, value]) => present.has(value)).map(([name, idx]) => ({ name, idx }))
  return { voxels, labels }
}

/** Name of the row that is chosen in the list of labels; undefined if none is. */
export function chosenRow() {
  const rows = [...document.querySelectorAll(`${PANEL} tr.clickable-row`)]
  // The panel says it by a colour alone.
  const row = rows.find((each) => !['', 'transparent'].includes(/** @type {HTMLElement} */ (each).style.backgroundColor))
  return row?.textContent?.trim()
}

/** Strategy that is chosen in the panel, which itself always asks for the one called random. */
export const chosenStrategy = () => {
  const options = [...document.querySelectorAll(`${PANEL} option`)]
  const choice = options.find((each) => /** @type {HTMLOptionElement} */ (each).value === 'random')?.closest('select')
  return choice?.value
}

/**
 * Call back for each point that somebody sets.
 * @param {(label: string | undefined, voxel: number[], isBackground: boolean) => void} onPoint the label is the one
 *   that was chosen last
 */
export function listenToPoints(onPoint) {
  let label = /** @type {string | undefined} */ (undefined)
  const { eventTarget } = ohif.cornerstone
  eventTarget.addEventListener(ohif.cornerstoneTools.Enums.Events.ANNOTATION_COMPLETED, (/** @type {any} */ event) => {
    const { annotation } = event.detail
    if (annotation.metadata.toolName !== POINT_TOOL) {
      return
    }
    const row = chosenRow()
    label = row === BACKGROUND ? label : row
    const voxel = maskVolume().imageData.worldToIndex(annotation.data.handles.points[0]).map(Math.round)
    onPoint(label, voxel, row === BACKGROUND)
  })
}
