import { Budget } from '@icebox/model'

const MIB = 1024 * 1024

/** What waits for one guest, or came from it and waits for its reader, or is being decoded. */
export const LINK_BYTES = 64 * MIB
/** Of these, what may wait for the guest to take it. */
export const OUTGOING_BYTES = 16 * MIB
/**
 * What one guest may send ahead of its readers, over all its streams. A stream begins with an eighth of what is left, at most `WINDOW`;
 * the least is granted however many there are.
 */
export const AHEAD_BYTES = 24 * MIB
export const LEAST_WINDOW = 16 * 1024
/** What `LINK_BYTES` bounds for one, of all guests together. */
export const LINKS = new Budget('the links to all guests', 512 * MIB)
/** Listings of directories are wanted as a whole: at 100 000 entries one takes more than all else on a link. */
export const LISTING_BYTES = 128 * MIB
export const LISTINGS = new Budget('the listings of directories of all guests', 384 * MIB)
