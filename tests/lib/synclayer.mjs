// SPDX-License-Identifier: BSD-3-Clause
// An app with an unmodified SyncLayer 1.7, as far as a server can tell: what that SDK stores, sends and does with what it
// receives, its oddities included. Written from its behaviour:
//
// - The URL is taken as given, with ?token= appended. The connection counts as open before it is, and the first
//   "connected" has passed before anybody listens: it subscribes from the second connection on, never on the first.
// - Whatever `insert`, `update` or `sync` carries replaces the local record, unless that has a local change that is newer by
//   the local clock. Nothing tells it that its own change has arrived; a local change counts as one until somebody
//   else's has come. A deleted record stays deleted, whatever comes.
// - Unknown types are taken for `sync`. Pages delete nothing.
// - Times are local, without a zone, with microseconds. save() sends the whole record, update() the changed fields.
// - Each change goes into a queue as well, for HTTP, and is sent from there when that is synced next; what was not sent by
//   WebSocket since there was none goes that way alone.
import { createRequire } from 'node:module';
import { Waiters } from './wait.mjs';

const require = createRequire(import.meta.url);
const WebSocket = require('ws');

const TYPES = ['sync', 'insert', 'update', 'delete', 'ping', 'pong', 'subscribe', 'unsubscribe'];
const PULL = 100;
const GRACE_MS = 5000;

const isObject = (value) => typeof value === 'object' && value !== null && !Array.isArray(value);

/** As Dart's DateTime.parse: throws where that does. */
function parseTime(text) {
    const ms = typeof text === 'string' && /^\d{4}-\d\d-\d\d[T ]\d\d:\d\d/.test(text) ? Date.parse(text) : NaN;
    if (Number.isNaN(ms)) {
        throw new TypeError(`no time: ${JSON.stringify(text)}`);
    }
    return ms;
}

/** The SDK's database. Versions count here and are overwritten by the server's. */
class LocalStorage {
    #collections = new Map();

    #all(collection) {
        if (!this.#collections.has(collection)) {
            this.#collections.set(collection, new Map());
        }
        return this.#collections.get(collection);
    }

    get(collection, id) {
        const record = this.#all(collection).get(id);
        return record && !record.deleted ? record : undefined;
    }

    save(collection, id, data) {
        const record = this.#all(collection).get(id) ?? { version: 0, deleted: false };
        Object.assign(record, { data: JSON.stringify(data), updated: Date.now(), synced: false, version: record.version + 1 });
        this.#all(collection).set(id, record);
    }

    markSynced(collection, id, version, time) {
        const record = this.#all(collection).get(id);
        if (record) {
            Object.assign(record, { synced: true, version, syncedAt: time });
        }
    }

    delete(collection, id) {
        const record = this.#all(collection).get(id);
        if (record) {
            Object.assign(record, { deleted: true, synced: false, updated: Date.now(), version: record.version + 1 });
        }
    }

    lastSync(collection) {
        const times = [...this.#all(collection).values()].map((record) => record.syncedAt).filter(Boolean);
        return times.length ? Math.max(...times) : undefined;
    }

    setLastSync(collection, time) {
        this.#all(collection).forEach((record) => {
            record.syncedAt = time;
        });
    }

    /** What the app shows: {id: data}. */
    visible(collection) {
        const shown = [...this.#all(collection)].filter(([, record]) => !record.deleted);
        return Object.fromEntries(shown.map(([id, record]) => [id, JSON.parse(record.data)]));
    }
}

export class SyncLayerApp {
    /**
     * @param {object} config
     * @param {string} config.url websocketUrl
     * @param {string[]} config.collections
     * @param {string} [config.token] authToken
     * @param {string} [config.baseUrl] for HTTP; without it the queue is never sent
     * @param {number} [config.reconnectMs] websocketReconnectDelay; the SDK's default is 5 s
     * @param {number} [config.zoneMinutes] how far the local time is ahead of UTC
     */
    constructor({ url, collections, token, baseUrl, reconnectMs = 100, zoneMinutes = 0 }) {
        Object.assign(this, { url, collections, token, baseUrl, reconnectMs, zoneMinutes });
        this.local = new LocalStorage();
        this.queue = [];
        this.waiters = new Waiters();
        /** What made the SDK throw away a message: none of it may come from a server that wants to be understood. */
        this.complaints = [];
        /** Numbers of messages sent, by type, and of connections. */
        this.sent = {};
        this.connections = 0;
        this.state = 'disconnected';
    }

    // --- WebSocketService

    start() {
        this.#connect();
        this.listening = true; // too late for the first "connected"
        this.pinging = setInterval(() => this.send({ type: 'ping' }), 30_000);
        return this;
    }

    #connect() {
        if (this.state === 'connected' || this.stopped) {
            return;
        }
        const socket = new WebSocket(this.token === undefined ? this.url : `${this.url}?token=${this.token}`);
        this.socket = socket;
        this.connections++;
        this.waiting = [];
        socket.on('open', () => {
            this.waiting.splice(0).forEach((text) => socket.send(text));
            this.waiters.wake();
        });
        socket.on('message', (data) => this.#receive(data.toString()));
        socket.on('error', () => this.#gone(socket));
        socket.on('close', () => this.#gone(socket));
        this.state = 'connected';
        if (this.listening) {
            this.collections.forEach((collection) => this.send({ type: 'subscribe', collection }));
        }
    }

    #gone(socket) {
        if (socket === this.socket) {
            this.state = 'disconnected';
            clearTimeout(this.timer);
            this.timer = this.stopped ? undefined : setTimeout(() => this.#connect(), this.reconnectMs);
        }
        this.waiters.wake();
    }

    get open() {
        return this.socket?.readyState === WebSocket.OPEN;
    }

    /** Until the connection is really there, which the SDK itself never asks. */
    untilOpen() {
        return this.waiters.until(() => this.open, () => `the app to connect to ${this.url}`);
    }

    send(message) {
        if (this.state !== 'connected') {
            return;
        }
        this.sent[message.type] = (this.sent[message.type] ?? 0) + 1;
        const text = JSON.stringify(message);
        if (this.socket.readyState === WebSocket.CONNECTING) {
            this.waiting.push(text);
        } else {
            this.socket.send(text, () => {});
        }
    }

    /** The connection is lost as when a phone loses its network; it comes back by itself. */
    lose() {
        this.socket.terminate();
    }

    stop() {
        this.stopped = true;
        clearTimeout(this.timer);
        clearInterval(this.pinging);
        this.socket?.terminate();
    }

    // --- RealtimeSyncManager

    #receive(text) {
        try {
            const json = JSON.parse(text);
            const type = TYPES.includes(json.type) ? json.type : 'sync';
            if (json.data !== undefined && json.data !== null && !isObject(json.data)) {
                throw new TypeError('data is no map');
            }
            if (json.metadata !== undefined && !isObject(json.metadata)) {
                throw new TypeError('metadata is no map');
            }
            if (type === 'sync' && json.type !== 'sync' && json.data) {
                throw new TypeError(`${json.type} is taken for a sync and carries data`);
            }
            const time = json.timestamp ? parseTime(json.timestamp) : Date.now();
            this.#handle(type, json, time);
        } catch (error) {
            this.complaints.push(`${error.message}: ${text.slice(0, 300)}`);
        }
        this.waiters.wake();
    }

    #handle(type, { collection, recordId: id, data, metadata }, time) {
        if (type === 'delete' && collection && id) {
            this.local.delete(collection, id);
        } else if ((type === 'insert' || type === 'update') && collection && id && data) {
            this.#take(collection, id, data, metadata?.version, time);
        } else if (type === 'sync' && collection && data?.records) {
            data.records.forEach((record) => {
                this.local.save(collection, record.id, record.data);
                this.local.markSynced(collection, record.id, record.version ?? 1, parseTime(record.updatedAt));
            });
        }
    }

    #take(collection, id, data, version, time) {
        const have = this.local.get(collection, id);
        if (!have) {
            this.local.save(collection, id, data);
            this.local.markSynced(collection, id, version ?? 1, time);
            return;
        }
        const mine = !have.synced && have.updated > time;
        this.local.save(collection, id, mine ? JSON.parse(have.data) : data);
        this.local.markSynced(collection, id, version ?? have.version + 1, time);
    }

    // --- CollectionReference

    #now() {
        const text = new Date(Date.now() + this.zoneMinutes * 60_000).toISOString().slice(0, -1);
        return `${text}${String(Math.floor(Math.random() * 999) + 1).padStart(3, '0')}`;
    }

    #sendChange(type, collection, recordId, data) {
        this.send({ type, collection, recordId, ...(data ? { data } : {}), timestamp: this.#now() });
    }

    save(collection, id, data) {
        const type = this.local.get(collection, id) ? 'update' : 'insert';
        this.local.save(collection, id, data);
        this.queue.push({ type, collection, id, data, time: this.#now(), tries: 0 });
        this.#sendChange(type, collection, id, data);
    }

    update(collection, id, fields) {
        const have = this.local.get(collection, id);
        const { version } = have;
        this.local.save(collection, id, { ...JSON.parse(have.data), ...fields });
        this.queue.push({ type: 'delta', collection, id, data: fields, version, time: this.#now(), tries: 0 });
        this.#sendChange('update', collection, id, fields);
    }

    delete(collection, id) {
        this.local.delete(collection, id);
        this.queue.push({ type: 'delete', collection, id, time: this.#now(), tries: 0 });
        this.#sendChange('delete', collection, id);
    }

    get(collection, id) {
        const record = this.local.get(collection, id);
        return record && JSON.parse(record.data);
    }

    // --- SyncEngine: HTTP

    /** syncNow(): what is in the queue goes out, then what is new is fetched. A failed operation waits for `online()`. */
    async syncNow() {
        for (const operation of this.queue.filter((o) => !o.failed)) {
            try {
                await this.#push(operation);
                this.queue.splice(this.queue.indexOf(operation), 1);
            } catch (error) {
                operation.failed = error;
                operation.tries++;
            }
        }
        for (const collection of this.collections) {
            await this.#pull(collection);
        }
        this.waiters.wake();
    }

    /** The phone says that it has a network again. */
    online() {
        this.queue.forEach((operation) => {
            operation.failed = undefined;
            operation.tries = 0;
        });
        return this.syncNow();
    }

    async #request(method, where, body) {
        const response = await fetch(`${this.baseUrl}${where}`, {
            method,
            headers: { 'Content-Type': 'application/json', ...(this.token === undefined ? {} : { Authorization: `Bearer ${this.token}` }) },
            body: body && JSON.stringify(body),
        });
        const text = await response.text();
        if (!response.ok) {
            throw new Error(`${method} ${where}: ${response.status} ${text}`);
        }
        return text ? JSON.parse(text) : undefined;
    }

    #push({ type, collection, id, data, version, time }) {
        if (type === 'delete') {
            return this.#request('DELETE', `/sync/${collection}/${id}`);
        }
        if (type === 'delta') {
            return this.#request('PATCH', `/sync/${collection}/${id}`, { delta: data, baseVersion: version, timestamp: time });
        }
        return this.#request('POST', `/sync/${collection}`, { recordId: id, data, timestamp: time });
    }

    async #pull(collection) {
        const since = this.local.lastSync(collection);
        let latest;
        for (let offset = 0; ; offset += PULL) {
            const query = new URLSearchParams({ limit: PULL, offset });
            if (since !== undefined) {
                query.set('since', new Date(since + this.zoneMinutes * 60_000).toISOString().slice(0, -1)); // local again
            }
            const { records } = await this.#request('GET', `/sync/${collection}?${query}`);
            for (const record of records) {
                const time = parseTime(record.updatedAt);
                this.#takePulled(collection, record, time);
                latest = Math.max(latest ?? time, time);
            }
            if (records.length < PULL) {
                break;
            }
        }
        this.local.setLastSync(collection, latest ?? Date.now());
    }

    #takePulled(collection, { recordId: id, data, version }, time) {
        const have = this.local.get(collection, id);
        const conflict = have && (have.version !== version || (!have.synced && have.syncedAt && have.updated > have.syncedAt + GRACE_MS));
        const mine = conflict && have.updated > time;
        this.local.save(collection, id, mine ? JSON.parse(have.data) : data);
        this.local.markSynced(collection, id, conflict ? version + 1 : version, conflict ? Date.now() : time);
    }
}
