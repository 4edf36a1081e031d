import { expect, test } from 'vitest'
import { Grid } from '../src/grid'
import { GAINED, LOST, LabelMap } from '../src/labelmap'
import { forEachVoxel, packed, placeOfMost } from '../src/masks'
import type { Label, Mask, Voxel } from '../src/types'

const SHAPE: Voxel = [4, 3, 5]

function voxelsOf(mask: Mask): Voxel[] {
  const voxels: Voxel[] = []
  forEachVoxel(mask, (...voxel) => voxels.push(voxel))
  return voxels
}

function label(name: string, key: string, mask: Mask | null): Label {
  return { name, key, mask, volume_ml: 1, is_locked: false, source: 'user', certainty: null, foreground: [], background: [], boxes: [] }
}

function labelMap(): LabelMap {
  const grid = new Grid({ shape: SHAPE, spacing: [1, 1, 1], axes: [[0, 1], [1, 1], [2, 1]], axis: 2 })
  return new LabelMap(grid, new Uint8Array(60))
}

test('a mask is packed as the server packs it', () => {
  // By PackedMask.pack of the voxels (1, 0, 2), (1, 2, 2) and (3, 1, 4) of a 4 x 3 x 5 volume.
  const voxels: Voxel[] = [[1, 0, 2], [1, 2, 2], [3, 1, 4]]
  const mask = packed(voxels, SHAPE)
  expect(mask.corner).toEqual([1, 0, 2])
  expect(mask.extent).toEqual([3, 3, 3])
  expect(voxelsOf(mask)).toEqual(voxels)
  const ofServer = { ...mask, bits: 'eJxrYmBkAAACDgCE' }
  expect(voxelsOf(ofServer)).toEqual(voxels)
})

test('an empty mask has no voxels', () => {
  expect(voxelsOf(packed([], SHAPE))).toEqual([])
})

test('labels replace their own voxels alone, and masks that are known need not come again', () => {
  const map = labelMap()
  map.update([label('liver', 'a', packed([[0, 0, 0], [1, 0, 0]], SHAPE)), label('spleen', 'b', packed([[2, 0, 0]], SHAPE))])
  expect([...map.bitmap.slice(0, 4)]).toEqual([1, 1, 2, 0])
  expect(map.known).toEqual(['a', 'b'])
  // The spleen takes a voxel of the liver: both are new.
  map.update([label('liver', 'c', packed([[0, 0, 0]], SHAPE)), label('spleen', 'd', packed([[1, 0, 0], [2, 0, 0]], SHAPE))])
  expect([...map.bitmap.slice(0, 4)]).toEqual([1, 2, 2, 0])
  map.update([label('spleen', 'd', null)])
  expect([...map.bitmap.slice(0, 4)]).toEqual([0, 2, 2, 0])
})

test('a preview shows what is gained and lost, and leaves no trace', () => {
  const map = labelMap()
  map.update([label('liver', 'a', packed([[0, 0, 0], [1, 0, 0]], SHAPE))])
  const before = [...map.bitmap]
  const [gained, lost] = [packed([[2, 0, 0]], SHAPE), packed([[0, 0, 0]], SHAPE)]
  map.preview([{ label: 'liver', gained_ml: 1, lost_ml: 1, gained, lost }])
  expect([...map.bitmap.slice(0, 4)]).toEqual([LOST, 1, GAINED, 0])
  map.endPreview()
  expect([...map.bitmap]).toEqual(before)
})

test('the place of most voxels is in the middle of the slice that has most of them', () => {
  const gained = packed([[0, 0, 1], [1, 2, 3]], SHAPE)
  const lost = packed([[2, 0, 3], [2, 1, 3], [2, 2, 3]], SHAPE)
  expect(placeOfMost([gained, lost], 2)).toEqual([2, 1, 3])
  expect(placeOfMost([packed([], SHAPE)], 2)).toBeNull()
})
