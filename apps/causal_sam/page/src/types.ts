/** Bodies of the server's answers, as its OpenAPI describes them. */
import type { components } from './schema'

type Schemas = components['schemas']
export type Case = Schemas['Case']
export type Label = Schemas['Label']
export type Mask = Schemas['Mask']
export type NextCase = Schemas['NextCase']
export type NotePreview = Schemas['NotePreview']
export type OpenedCase = Schemas['OpenedCase']
export type Session = Schemas['Session']
export type Training = Schemas['Training']
export type Version = Schemas['Version']
export type Prompt =
  | Schemas['Points']
  | Schemas['Box']
  | Schemas['LassoCurve']
  | Schemas['Scribble']
  | Schemas['Brush']
export type Voxel = [number, number, number]
