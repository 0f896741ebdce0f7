// SPDX-License-Identifier: BSD-3-Clause
// Numbers that a seed gives again, so that a failure comes again.

/** MQSYNC_SEED, or another one each time; a test that uses it says so in its name or its failure. */
export const seed = Number(process.env.MQSYNC_SEED ?? Date.now() % 1_000_000);

/** A function that gives whole numbers from 0 to below its argument: mulberry32. */
export function randomness(start) {
    let a = start >>> 0;
    return (below) => {
        a = a + 0x6D2B79F5 >>> 0;
        let t = Math.imul(a ^ a >>> 15, a | 1);
        t ^= t + Math.imul(t ^ t >>> 7, t | 61);
        return Math.floor(((t ^ t >>> 14) >>> 0) / 2 ** 32 * below);
    };
}
