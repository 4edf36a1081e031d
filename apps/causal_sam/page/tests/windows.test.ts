import { expect, test } from 'vitest'
import { numbersOf, windowsOf } from '../src/windows'

test('presets of CT have their width and level, and the window of the image has none', () => {
  const presets = windowsOf({ window: [-3, 12], modality: 'CT' })
  expect(presets.map((each) => `${each.name} ${numbersOf(each)}`)).toEqual([
    'auto ',
    'soft 400/40',
    'liver 150/30',
    'lung 1500/-600',
    'bone 1500/300',
    'brain 80/40',
  ])
  expect(windowsOf({ window: [0, 1], modality: 'MR' })).toHaveLength(1)
})
