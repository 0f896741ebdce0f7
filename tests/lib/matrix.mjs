// SPDX-License-Identifier: BSD-3-Clause
// One test for each combination of protocol version, QoS and form.
import { test } from 'node:test';

export const VERSIONS = [4, 5];
export const QOS = [0, 1, 2];
export const FORMS = ['long', 'short'];

/**
 * @param {string} name
 * @param {{versions?: number[], qos?: number[], forms?: string[], skip?: (c) => boolean}} over
 * @param {(combination: {version: number, qos: number, form: string, t: object}) => Promise<void>} body
 */
export function matrix(name, over, body) {
    const { versions = VERSIONS, qos = QOS, forms = ['long'], skip } = over;
    for (const version of versions) {
        for (const level of qos) {
            for (const form of forms) {
                const combination = { version, qos: level, form };
                if (!skip?.(combination)) {
                    const suffix = `MQTT ${version === 5 ? '5' : '3.1.1'} QoS ${level}${forms.length > 1 ? ` ${form}` : ''}`;
                    test(`${name} [${suffix}]`, (t) => body({ ...combination, t }));
                }
            }
        }
    }
}

/** The short form has no metadata in MQTT 3.1.1. */
export const needsMetadata = ({ version, form }) => form === 'short' && version === 4;
