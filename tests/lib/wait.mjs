// SPDX-License-Identifier: BSD-3-Clause
// Waiting for something to become true, woken by events, never by the clock.
import { deadlineMs } from './env.mjs';

/** A list of conditions that are looked at again each time somebody says that something has happened. */
export class Waiters {
    #waiting = new Set();

    /** Looks at every condition again. */
    wake() {
        for (const waiter of [...this.#waiting]) {
            waiter.look();
        }
    }

    /**
     * Resolves with the first truthy value of `condition()`.
     * @param {() => any} condition may throw: the wait then fails with that
     * @param {() => string} describe called when the deadline has passed: what was waited for, and what came instead
     */
    until(condition, describe, ms = deadlineMs) {
        return new Promise((resolve, reject) => {
            const waiter = {};
            const finish = (settle, value) => {
                this.#waiting.delete(waiter);
                clearTimeout(timer);
                settle(value);
            };
            const timer = setTimeout(() => finish(reject, new Error(`not within ${ms} ms: ${describe()}`)), ms);
            waiter.look = () => {
                try {
                    const value = condition();
                    if (value) {
                        finish(resolve, value);
                    }
                } catch (error) {
                    finish(reject, error);
                }
            };
            this.#waiting.add(waiter);
            waiter.look();
        });
    }
}

/**
 * Asks again and again, a short while apart, until `ask()` gives something truthy: for what announces itself to nobody.
 */
export async function poll(ask, what, ms = deadlineMs) {
    const end = Date.now() + ms;
    for (;;) {
        const value = await ask();
        if (value) {
            return value;
        }
        if (Date.now() > end) {
            throw new Error(`not within ${ms} ms: ${what}`);
        }
        await new Promise((resolve) => setTimeout(resolve, 20));
    }
}

/** The promise, or an error after the deadline. */
export function withDeadline(promise, what, ms = deadlineMs) {
    let timer;
    const late = new Promise((_, reject) => {
        timer = setTimeout(
            () => reject(new Error(`not within ${ms} ms: ${typeof what === 'function' ? what() : what}`)),
            ms,
        );
    });
    return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}
