// SPDX-License-Identifier: BSD-3-Clause
// An MQTT client (mqtt.js) that speaks the protocol's words: commands out; answers, events and records in, each
// checked.
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { deadlineMs } from './env.mjs';
import { checkRecord, checkServerMessage } from './shape.mjs';
import { Waiters, withDeadline } from './wait.mjs';

const require = createRequire(import.meta.url);
const mqtt = require('mqtt');

let counter = 0;
/** A word nobody has used before in this process. */
export const unique = (prefix = 'x') => `${prefix}${process.pid}-${++counter}`;

const brief = (message) => `${message.topic} ${message.payload.toString('utf8').slice(0, 300)}`;

function matcher(match) {
    if (typeof match === 'function') {
        return match;
    }
    if (typeof match === 'string') {
        return (m) => m.json.type === match;
    }
    // An object: every field of it, `code` and `type` of the message, the others also of its metadata.
    return (m) => Object.entries(match).every(([key, value]) => (m.json[key] ?? m.json.metadata?.[key]) === value);
}

export class Client {
    /**
     * @param {import('./broker.mjs').Broker} broker
     * @param {object} options mqtt.js options and: version (4 or 5), qos (default of what is sent), port, url
     */
    constructor(broker, { version = 4, qos = 1, port, url, ...options } = {}) {
        this.broker = broker;
        this.qos = qos;
        this.version = version;
        this.clientId = options.clientId ?? unique('client');
        this.url = url ?? `mqtt://127.0.0.1:${port ?? broker.port}`;
        this.options = {
            clean: true,
            reconnectPeriod: 0,
            connectTimeout: deadlineMs,
            keepalive: 600,
            resubscribe: false,
            ...options,
            clientId: this.clientId,
            protocolVersion: version,
        };
        /** What came in and nobody has taken out yet. */
        this.answers = [];
        this.events = [];
        this.records = [];
        this.others = [];
        this.all = [];
        this.waiters = new Waiters();
        this.answerTopics = new Set();
    }

    get v5() {
        return this.version === 5;
    }

    async connect() {
        this.mqtt = mqtt.connect(this.url, this.options);
        this.mqtt.stream.setNoDelay?.(true);
        this.mqtt.on('message', (topic, payload, packet) => this.#received(topic, payload, packet));
        this.mqtt.on('error', (error) => {
            this.error = error;
            this.waiters.wake();
        });
        this.mqtt.on('close', () => {
            this.closed = true;
            this.waiters.wake();
        });
        this.mqtt.on('disconnect', (packet) => {
            this.disconnectReason = packet?.reasonCode;
        });
        this.closed = false;
        this.connack = await new Promise((resolve, reject) => {
            this.mqtt.once('connect', resolve);
            this.mqtt.once('error', reject);
            this.mqtt.once('close', () => reject(this.error ?? new Error('closed before CONNACK')));
        });
        return this;
    }

    #kind(topic) {
        const { root } = this.broker;
        if (this.answerTopics.has(topic)) {
            return 'answers';
        }
        if (topic.startsWith(`${root}/`)) {
            const level = topic.slice(root.length + 1).split('/')[1];
            return { re: 'answers', evt: 'events', rec: 'records' }[level] ?? 'others';
        }
        return 'others';
    }

    #received(topic, payload, packet) {
        const { qos, retain, dup, properties } = packet;
        const message = {
            topic,
            payload,
            qos,
            retain,
            dup,
            properties,
            kind: this.#kind(topic),
            text: payload.toString('utf8'),
        };
        try {
            if (message.kind === 'answers' || message.kind === 'events') {
                message.json = checkServerMessage(payload);
            } else if (message.kind === 'records' && payload.length) {
                message.json = checkRecord(payload);
            }
        } catch (error) {
            message.json ??= {};
            const violation = `${error.message}: ${brief(message)}`;
            this.broker.violations.push(violation);
            this.violation ??= new Error(`message breaks the contract: ${violation}`);
        }
        this.all.push(message);
        this[message.kind].push(message);
        this.waiters.wake();
    }

    #until(condition, what, list, ms) {
        return this.waiters.until(
            () => {
                if (this.violation) {
                    throw this.violation;
                }
                const value = condition();
                if (!value && this.closed) {
                    throw new Error(
                        `${this.clientId} lost its connection while waiting for ${what}; broker's log:\n${this.broker.log.slice(-2000)}`,
                    );
                }
                return value;
            },
            () =>
                `${what}. ${this.clientId} has received instead:\n  ${list().slice(-10).map(brief).join('\n  ') || 'nothing'}`,
            ms,
        );
    }

    #take(list, match, what) {
        const matches = matcher(match);
        return this.#until(
            () => {
                const i = list.findIndex(matches);
                return i >= 0 && list.splice(i, 1)[0];
            },
            `${what} ${typeof match === 'function' ? match : JSON.stringify(match)}`,
            () => list,
        );
    }

    /** The next answer that matches, a string being its type; others stay for later. */
    async answer(match = () => true) {
        return (await this.#take(this.answers, match, 'an answer')).json;
    }

    /** The same with topic, payload, qos, properties around it. */
    answerPacket(match = () => true) {
        return this.#take(this.answers, match, 'an answer');
    }

    async event(match = () => true) {
        return (await this.#take(this.events, match, 'an event')).json;
    }

    eventPacket(match = () => true) {
        return this.#take(this.events, match, 'an event');
    }

    recordPacket(match = () => true) {
        return this.#take(this.records, match, 'a record');
    }

    other(match = () => true) {
        return this.#take(this.others, match, 'a message of another topic');
    }

    until(condition, what, ms) {
        return this.#until(condition, what, () => this.all, ms);
    }

    /** SUBSCRIBE; resolves with the granted QoS or refusal code (128 and up). */
    async subscribe(filter, { qos = 2, ...options } = {}) {
        try {
            const grants = await withDeadline(
                this.mqtt.subscribeAsync(filter, { qos, ...options }),
                `SUBACK for ${filter}`,
            );
            return grants[0]?.qos ?? 128;
        } catch (error) {
            if (/^not within/.test(error.message)) throw error;
            return error.code ?? 128;
        }
    }

    unsubscribe(filter) {
        return withDeadline(this.mqtt.unsubscribeAsync(filter), `UNSUBACK for ${filter}`);
    }

    /** PUBLISH; resolves when it is acknowledged as its QoS says, with the MQTT 5 reason code (0 otherwise). */
    async publish(topic, payload = '', { qos = this.qos, ...options } = {}) {
        const body = typeof payload === 'string' || Buffer.isBuffer(payload) ? payload : JSON.stringify(payload);
        try {
            const packet = await withDeadline(
                this.mqtt.publishAsync(topic, body, { qos, ...options }),
                () => `the acknowledgement of a QoS ${qos} PUBLISH to ${topic}`,
            );
            return packet?.reasonCode ?? 0;
        } catch (error) {
            if (typeof error.code === 'number' && error.code >= 128) {
                return error.code;
            }
            throw error;
        }
    }

    /** A message of the protocol, object or raw text, on the collection's cmd topic. */
    cmd(collection, message, options) {
        return this.publish(`${this.broker.root}/${collection}/cmd`, message, options);
    }

    /** The short form: the data alone. */
    short(collection, recordId, op, data, options) {
        return this.publish(`${this.broker.root}/${collection}/cmd/${recordId}/${op}`, data, options);
    }

    /**
     * A write in the form asked for.
     * @param {'long'|'short'} form short form metadata need MQTT 5
     * @param {{type, collection, recordId, data, timestamp, metadata}} message data may be text that is sent as it is
     */
    write(form, { type, collection, recordId, data, timestamp, metadata }, options = {}) {
        if (form === 'short') {
            assert.ok(this.v5 || (!metadata && !timestamp), 'short form metadata need MQTT 5');
            const userProperties = { ...(timestamp && { timestamp }), ...options.properties?.userProperties };
            for (const [key, value] of Object.entries(metadata ?? {})) {
                userProperties[key] = String(value);
            }
            // mqtt.js sends nothing at all when userProperties is there and empty.
            const properties = Object.keys(userProperties).length && {
                properties: { ...options.properties, userProperties },
            };
            return this.short(collection, recordId, type, data ?? '', { ...options, ...properties });
        }
        const head = JSON.stringify({ type, collection, recordId, timestamp, metadata });
        const raw = typeof data === 'string' ? data : JSON.stringify(data);
        return this.cmd(collection, data === undefined ? head : `${head.slice(0, -1)},"data":${raw}}`, options);
    }

    /**
     * Asks for a pong at the QoS of what went before: whatever that made the server send is here then. Pages of a
     * snapshot may be later.
     */
    async settle(collection = 'ready', { qos = this.qos } = {}) {
        await this.cmd(collection, { type: 'ping' }, { qos });
        await this.answer('pong');
    }

    /** Nothing but what has been taken already has come, and nothing is on its way. */
    async noAnswers(collection, options) {
        await this.settle(collection, options);
        assert.deepEqual(this.answers.map(brief), [], 'answers nobody asked for');
    }

    /**
     * Asks for all that a collection holds (or has changed since) and reads all pages.
     * @returns {Promise<{records: Map<string, object>, deleted: Map<string, object>, pages: object[], seq: number,
     * epoch: string}>}
     */
    async sync(collection, metadata, options) {
        await this.cmd(collection, { type: 'sync', collection, ...(metadata && { metadata }) }, options);
        return this.pages(collection);
    }

    /** Reads the pages of one answer, to the last. */
    async pages(collection) {
        const packets = [];
        do {
            packets.push(await this.answerPacket((m) => m.json.type === 'sync' && m.json.collection === collection));
        } while (packets.at(-1).json.metadata.more);
        const pages = packets.map((p) => p.json);
        const collect = (key) =>
            new Map(pages.flatMap((page) => page.data[key] ?? []).map((entry) => [entry.id, entry]));
        const { seq, epoch } = pages.at(-1).metadata;
        return { records: collect('records'), deleted: collect('deleted'), pages, packets, seq, epoch };
    }

    /** One record as it is now, or undefined. */
    async read(collection, recordId) {
        return (await this.sync(collection)).records.get(recordId);
    }

    async close() {
        if (this.mqtt && !this.closed) {
            await withDeadline(this.mqtt.endAsync(), 'DISCONNECT to be sent').catch(() => this.end());
        }
        this.broker.clients.delete(this);
    }

    /** Without a DISCONNECT: the broker sees a lost connection. */
    drop() {
        this.mqtt.stream.destroy();
        this.broker.clients.delete(this);
        return this.waiters.until(
            () => this.closed,
            () => 'the socket to close',
        );
    }

    end() {
        this.mqtt?.end(true);
    }
}

/**
 * Waits until each subscriber has the event of a write that `writer` makes now: those of all its earlier writes in this
 * collection are
 * here then, and nothing more of them is to come.
 */
export async function eventBarrier(writer, collection, subscribers, { qos = writer.qos } = {}) {
    const recordId = unique('barrier');
    await writer.cmd(collection, { type: 'insert', collection, recordId, data: {} }, { qos });
    await Promise.all([subscribers].flat().map((subscriber) => subscriber.event({ recordId })));
}
