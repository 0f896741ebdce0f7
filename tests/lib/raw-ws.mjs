// SPDX-License-Identifier: BSD-3-Clause
// WebSockets byte by byte, for what no client library sends.
import crypto from 'node:crypto';
import net from 'node:net';
import { Waiters } from './wait.mjs';

/** The request that asks for one; `more`: further header lines, each with its end. */
export const handshake = (path = '/ws', more = '') => `GET ${path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n`
    + `Sec-WebSocket-Key: ${crypto.randomBytes(16).toString('base64')}\r\nSec-WebSocket-Version: 13\r\n${more}\r\n`;

/** A client's frame; `length`: what it says of itself, if that is not the payload's own. */
export function frame(opcode, payload, { fin = true, rsv = 0, masked = true, length } = {}) {
    const body = Buffer.from(payload);
    const n = length ?? body.length;
    const head = n < 126 ? Buffer.from([n]) : n < 65_536 ? Buffer.from([126, n >> 8, n & 255])
        : Buffer.concat([Buffer.from([127, 0, 0, 0, 0]), Buffer.from([n >>> 24, n >> 16 & 255, n >> 8 & 255, n & 255])]);
    head[0] |= masked ? 0x80 : 0;
    const mask = masked ? crypto.randomBytes(4) : Buffer.alloc(0);
    return Buffer.concat([Buffer.from([(fin ? 0x80 : 0) | rsv << 4 | opcode]), head, mask, masked ? body.map((b, i) => b ^ mask[i & 3]) : body]);
}

/**
 * A TCP connection to a Bridge that sends as it likes: `received()` is what has come, `until(condition, what)` waits for
 * it, `gone` resolves when it is closed.
 */
export function rawSocket(bridge, first) {
    const socket = net.connect({ port: bridge.port, host: '127.0.0.1', noDelay: true });
    const waiters = new Waiters();
    const chunks = [];
    socket.on('data', (chunk) => {
        chunks.push(chunk);
        waiters.wake();
    });
    socket.on('error', () => {});
    socket.gone = new Promise((resolve) => socket.on('close', resolve)).then(() => waiters.wake());
    socket.received = () => Buffer.concat(chunks);
    socket.until = (condition, what) => waiters.until(condition, () => `${what}; came ${socket.received().toString('latin1').slice(-300)}`);
    socket.on('connect', () => first && socket.write(first));
    return socket;
}

/** The same, and it is a WebSocket already. */
export async function upgraded(bridge, more) {
    const socket = rawSocket(bridge, handshake('/ws', more));
    await socket.until(() => socket.received().includes('\r\n\r\n'), 'the handshake');
    return socket;
}
