// SPDX-License-Identifier: BSD-3-Clause
// Plain HTTP to a Bridge: whole requests by node:http, which changes nothing in a path, and bytes by a socket.
import assert from 'node:assert/strict';
import http from 'node:http';
import https from 'node:https';
import net from 'node:net';
import { deadlineMs } from './env.mjs';
import { checkServerMessage } from './shape.mjs';
import { withDeadline } from './wait.mjs';

/** {status, headers, text, body}; body is the JSON. A failure under /sync must be an `error` message. */
export function request(bridge, method, path, { body, headers = {}, agent, secure, text = body === undefined ? undefined : JSON.stringify(body) } = {}) {
    const answered = new Promise((resolve, reject) => {
        const r = (secure ? https : http).request({ host: '127.0.0.1', port: bridge.port, method, path, agent, headers: {
            ...(text === undefined ? {} : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) }), ...headers } });
        r.on('response', (response) => {
            const chunks = [];
            response.on('data', (chunk) => chunks.push(chunk));
            response.on('error', reject);
            response.on('end', () => {
                const answer = { status: response.statusCode, headers: response.headers, text: Buffer.concat(chunks).toString() };
                if (answer.text && /json/.test(answer.headers['content-type'])) {
                    answer.body = JSON.parse(answer.text);
                }
                if (answer.status >= 400 && method !== 'HEAD') {
                    assert.equal(checkServerMessage(Buffer.from(answer.text)).type, 'error');
                }
                resolve(answer);
            });
        });
        r.on('error', reject);
        r.end(text);
    });
    return withDeadline(answered, () => `an answer to ${method} ${path}`, 2 * deadlineMs);
}

/** Sends the bytes and resolves with everything that comes until the connection closes, or until `until` matches. */
export function raw(bridge, bytes, { until, ms = 3 * deadlineMs } = {}) {
    const socket = net.connect(bridge.port, '127.0.0.1');
    let all = '';
    const over = new Promise((resolve) => {
        socket.on('data', (data) => {
            all += data.toString('latin1');
            if (until?.test(all)) {
                resolve(all);
            }
        });
        socket.on('error', () => resolve(all));
        socket.on('close', () => resolve(all));
    });
    socket.on('connect', () => socket.write(bytes));
    return withDeadline(over, () => `the end of an answer; came: ${all.slice(0, 500)}`, ms).finally(() => socket.destroy());
}
