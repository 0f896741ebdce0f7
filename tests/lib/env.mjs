// SPDX-License-Identifier: BSD-3-Clause
// What the tests are pointed at, from the environment, and how long they are patient.
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const here = path.dirname(fileURLToPath(import.meta.url));
export const repository = path.resolve(here, '../..');
export const schemas = path.join(repository, 'schemas');

const executable = (file) => {
    try {
        fs.accessSync(file, fs.constants.X_OK);
        return true;
    } catch {
        return false;
    }
};

/** Finds a program in PATH, or where Debian keeps daemons (not in every user's PATH). */
export function program(name) {
    const places = [...(process.env.PATH ?? '').split(':'), '/usr/sbin', '/usr/local/sbin'];
    return places.map((dir) => path.join(dir, name)).find(executable);
}

export const build = path.resolve(process.env.MQSYNC_BUILD ?? path.join(repository, 'build'));
export const plugin = path.resolve(process.env.MQSYNC_PLUGIN ?? path.join(build, 'mosquitto_mqsync.so'));
export const ctl = process.env.MQSYNC_CTL ?? path.join(build, 'mqsyncctl');
export const brokerProgram = process.env.MQSYNC_BROKER ?? program('mosquitto');
export const preload = process.env.MQSYNC_PRELOAD;
/** A command line put before the broker's, such as "valgrind -q --error-exitcode=99". */
export const wrapper = (process.env.MQSYNC_VALGRIND ?? '').split(' ').filter(Boolean);

/** Sanitizers and valgrind keep what was freed: bounds on memory are multiplied by this. */
export const memoryFactor = preload || wrapper.length ? 12 : 1;

/** Everything that waits multiplies by this: a broker under valgrind is not late, only slow. */
export const patience = Number(process.env.MQSYNC_PATIENCE ?? (wrapper.length ? 8 : preload ? 3 : 1));
export const deadlineMs = 10_000 * patience;

/** The first of the places where Debian and others put the broker's dynamic security plugin. */
export const dynamicSecurity = [
    process.env.MQSYNC_DYNSEC,
    '/usr/lib/x86_64-linux-gnu/mosquitto_dynamic_security.so',
    '/usr/lib/aarch64-linux-gnu/mosquitto_dynamic_security.so',
    '/usr/lib/mosquitto_dynamic_security.so',
].find((file) => file && fs.existsSync(file));
