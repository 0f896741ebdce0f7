// SPDX-License-Identifier: BSD-3-Clause
// An MQTT client of a few lines that does what proper ones refuse to: leaves acknowledgements out, sends a packet
// twice,
// speaks nonsense, stops reading.
import net from 'node:net';
import { deadlineMs } from './env.mjs';
import { Waiters } from './wait.mjs';

const TYPES = [
    null,
    'connect',
    'connack',
    'publish',
    'puback',
    'pubrec',
    'pubrel',
    'pubcomp',
    'subscribe',
    'suback',
    'unsubscribe',
    'unsuback',
    'pingreq',
    'pingresp',
    'disconnect',
    'auth',
];
const CODE = Object.fromEntries(TYPES.map((name, i) => [name, i]));

export const bytes = (value) => (Buffer.isBuffer(value) ? value : Buffer.from(value ?? '', 'utf8'));

const u16 = (n) => Buffer.from([n >> 8, n & 255]);
const u32 = (n) => Buffer.from([n >>> 24, (n >> 16) & 255, (n >> 8) & 255, n & 255]);
const text = (value) => Buffer.concat([u16(bytes(value).length), bytes(value)]);

function varint(n) {
    const out = [];
    do {
        out.push((n & 127) | (n > 127 ? 128 : 0));
        n >>>= 7;
    } while (n > 0);
    return Buffer.from(out);
}

/** MQTT 5 properties, of those that the tests use. */
function properties(p = {}) {
    const out = [];
    if (p.messageExpiryInterval !== undefined) out.push(Buffer.from([0x02]), u32(p.messageExpiryInterval));
    if (p.responseTopic !== undefined) out.push(Buffer.from([0x08]), text(p.responseTopic));
    if (p.correlationData !== undefined) out.push(Buffer.from([0x09]), text(p.correlationData));
    if (p.sessionExpiryInterval !== undefined) out.push(Buffer.from([0x11]), u32(p.sessionExpiryInterval));
    if (p.topicAlias !== undefined) out.push(Buffer.from([0x23]), u16(p.topicAlias));
    for (const [key, value] of p.userProperties ?? []) out.push(Buffer.from([0x26]), text(key), text(value));
    const body = Buffer.concat(out);
    return Buffer.concat([varint(body.length), body]);
}

/** One whole packet: first byte, length, body. */
export function packet(type, flags, ...parts) {
    const body = Buffer.concat(parts);
    return Buffer.concat([Buffer.from([(CODE[type] << 4) | flags]), varint(body.length), body]);
}

export class RawClient {
    /**
     * @param {{port: number, version?: 3|4|5, clientId?: string|Buffer, username?: string, password?: string}} options
     */
    constructor(options) {
        this.options = { version: 4, clientId: '', ...options };
        this.packets = [];
        this.waiters = new Waiters();
        this.closed = false;
        this.packetId = 0;
        /** Called with each packet as it comes. */
        this.onPacket = undefined;
    }

    get v5() {
        return this.options.version === 5;
    }

    open() {
        this.buffer = Buffer.alloc(0);
        this.closed = false;
        this.packets = [];
        return new Promise((resolve, reject) => {
            this.socket = net.connect({ port: this.options.port, host: '127.0.0.1', noDelay: true });
            this.socket.once('connect', resolve);
            this.socket.on('error', (error) => {
                this.error = error;
                reject(error);
            });
            this.socket.on('close', () => {
                this.closed = true;
                this.waiters.wake();
            });
            this.socket.on('data', (chunk) => this.#received(chunk));
        });
    }

    #received(chunk) {
        this.buffer = this.buffer.length ? Buffer.concat([this.buffer, chunk]) : chunk;
        for (let rest; (rest = this.#takePacket(this.buffer));) {
            this.buffer = rest;
        }
        this.waiters.wake();
    }

    #takePacket(buffer) {
        let length = 0;
        for (let i = 1; i < 5; i++) {
            if (i >= buffer.length) return undefined;
            length += (buffer[i] & 127) * 128 ** (i - 1);
            if (buffer[i] < 128) {
                const end = i + 1 + length;
                if (buffer.length < end) return undefined;
                const decoded = this.#decode(buffer[0], buffer.subarray(i + 1, end));
                this.packets.push(decoded);
                this.onPacket?.(decoded);
                return buffer.subarray(end);
            }
        }
        throw new Error('the broker sent a length of more than four bytes');
    }

    #decode(first, body) {
        const type = TYPES[first >> 4];
        const out = { type, flags: first & 15, body };
        if (type === 'connack') {
            out.sessionPresent = (body[0] & 1) === 1;
            out.returnCode = body[1];
        } else if (type === 'publish') {
            Object.assign(out, this.#decodePublish(first, body));
        } else if (type === 'disconnect') {
            out.reasonCode = body[0] ?? 0;
        } else if (body.length >= 2) {
            out.id = body.readUInt16BE(0);
            out.reasonCode = this.v5 ? (body[2] ?? 0) : 0;
            if (type === 'suback') out.codes = [...body.subarray(this.v5 ? 3 + body[2] : 2)];
        }
        return out;
    }

    #decodePublish(first, body) {
        const qos = (first >> 1) & 3;
        let at = 2 + body.readUInt16BE(0);
        const topic = body.toString('utf8', 2, at);
        let id;
        if (qos > 0) {
            id = body.readUInt16BE(at);
            at += 2;
        }
        if (this.v5) {
            let length = 0;
            let factor = 1;
            do {
                length += (body[at] & 127) * factor;
                factor *= 128;
            } while (body[at++] >= 128);
            at += length;
        }
        return { topic, id, qos, dup: (first & 8) !== 0, retain: (first & 1) !== 0, payload: body.subarray(at) };
    }

    send(buffer) {
        this.socket.write(buffer);
    }

    /** The next packet of the type that `match` accepts, taken out of what has come in. */
    next(type, match = () => true, ms = deadlineMs) {
        return this.waiters.until(
            () => {
                const i = this.packets.findIndex((p) => p.type === type && match(p));
                if (i >= 0) {
                    return this.packets.splice(i, 1)[0];
                }
                if (this.closed) {
                    throw new Error(
                        `connection closed while waiting for ${type}${this.error ? `: ${this.error}` : ''}`,
                    );
                }
                return undefined;
            },
            () => `a ${type} packet; there came ${JSON.stringify(this.packets.map((p) => p.type)).slice(0, 500)}`,
            ms,
        );
    }

    /** Opens a connection and says CONNECT; resolves with the CONNACK. */
    async connect({ clean = true, will, sessionExpiryInterval, keepalive = 0 } = {}) {
        const { version, clientId, username, password } = this.options;
        await this.open();
        const flags =
            (clean ? 2 : 0) |
            (will ? 4 | ((will.qos ?? 0) << 3) | (will.retain ? 32 : 0) : 0) |
            (username !== undefined ? 128 : 0) |
            (password !== undefined ? 64 : 0);
        const v5 = this.v5
            ? [properties({ sessionExpiryInterval: sessionExpiryInterval ?? (clean ? undefined : 3600) })]
            : [];
        this.send(
            packet(
                'connect',
                0,
                text('MQTT'),
                Buffer.from([version, flags]),
                u16(keepalive),
                ...v5,
                text(clientId),
                ...(will ? [...(this.v5 ? [properties()] : []), text(will.topic), text(will.payload)] : []),
                ...(username !== undefined ? [text(username)] : []),
                ...(password !== undefined ? [text(password)] : []),
            ),
        );
        return this.next('connack');
    }

    nextId() {
        this.packetId = (this.packetId % 65535) + 1;
        return this.packetId;
    }

    /** The bytes of a PUBLISH; `id` and `dup` as the test wants them. */
    publishPacket(topic, payload, { qos = 0, id, dup = false, retain = false, properties: p } = {}) {
        return packet(
            'publish',
            (dup ? 8 : 0) | (qos << 1) | (retain ? 1 : 0),
            text(topic),
            ...(qos ? [u16(id)] : []),
            ...(this.v5 ? [properties(p)] : []),
            bytes(payload),
        );
    }

    /** Sends a PUBLISH and waits for nothing; returns its packet id. */
    publish(topic, payload, options = {}) {
        const id = options.qos ? (options.id ?? this.nextId()) : undefined;
        this.send(this.publishPacket(topic, payload, { ...options, id }));
        return id;
    }

    puback(id) {
        this.send(packet('puback', 0, u16(id)));
    }

    pubrel(id) {
        this.send(packet('pubrel', 2, u16(id)));
    }

    async subscribe(filter, qos = 0) {
        const id = this.nextId();
        this.send(
            packet('subscribe', 2, u16(id), ...(this.v5 ? [properties()] : []), text(filter), Buffer.from([qos])),
        );
        return this.next('suback', (p) => p.id === id);
    }

    /** Publishes a command at QoS 0 and waits for whatever is sent in return. */
    async ask(topic, payload) {
        this.publish(topic, payload);
        return this.next('publish');
    }

    /** Asks with PINGREQ: when the answer is here, what was sent before it has been read. */
    async ping() {
        this.send(packet('pingreq', 0));
        return this.next('pingresp');
    }

    async waitClosed() {
        return this.waiters.until(
            () => this.closed,
            () => 'the broker to close the connection',
        );
    }

    destroy() {
        this.socket?.destroy();
    }
}
