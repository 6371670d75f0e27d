/** Reason of an image or snapshot whose files were gone. It is ready again when they are back. */
export const MISSING = 'Missing'
