// SPDX-License-Identifier: BSD-3-Clause
// A bridge of the test's own beside a Broker, and WebSocket clients (the `ws` package) that check each message they receive.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHmac } from 'node:crypto';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { Broker } from './broker.mjs';
import { build, deadlineMs, patience } from './env.mjs';
import { checkServerMessage } from './shape.mjs';
import { Waiters, withDeadline } from './wait.mjs';

const require = createRequire(import.meta.url);
const WebSocket = require('ws');

export const bridgeProgram = process.env.MQSYNC_BRIDGE ?? path.join(build, 'mqsync-bridge');
const wrapper = (process.env.MQSYNC_BRIDGE_VALGRIND ?? '').split(' ').filter(Boolean);
const alive = new Set();

process.on('exit', () => {
    for (const bridge of alive) {
        bridge.process?.kill('SIGKILL');
    }
});

/** A token as auth.jwt wants it, signed with HS256 unless `sign` says otherwise. */
export function token(secret, claims, { alg = 'HS256', sign } = {}) {
    const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
    const text = `${part({ alg, typ: 'JWT' })}.${part(claims)}`;
    const signature = sign ? sign(text) : createHmac('sha256', secret).update(text).digest('base64url');
    return `${text}.${signature}`;
}

function matcher(match) {
    if (typeof match === 'function') {
        return match;
    }
    if (typeof match === 'string') {
        return (m) => m.type === match;
    }
    return (m) => Object.entries(match).every(([key, value]) => (m[key] ?? m.metadata?.[key]) === value);
}

export class WsClient {
    constructor(bridge, url, options = {}) {
        this.bridge = bridge;
        this.url = url;
        this.options = options;
        /** What came in and nobody has taken out yet. */
        this.messages = [];
        this.texts = [];
        this.taken = 0; // how often something has been taken out
        this.waiters = new Waiters();
    }

    async open() {
        this.socket = new WebSocket(this.url, this.options);
        this.socket.on('message', (data, binary) => {
            assert.equal(binary, false);
            this.seen?.(data.toString());
            try {
                const message = checkServerMessage(data);
                this.texts.push(data.toString());
                this.messages.push(message);
            } catch (error) {
                this.bridge.violations.push(`${error.message}: ${data.toString().slice(0, 400)}`);
            }
            this.waiters.wake();
        });
        this.socket.on('error', (error) => {
            this.error = error;
        });
        this.socket.on('close', (code, reason) => {
            this.closed = { code, reason: reason.toString() };
            this.waiters.wake();
        });
        this.socket.on('unexpected-response', (request, response) => {
            let body = '';
            response.on('data', (chunk) => {
                body += chunk;
            });
            response.on('end', () => {
                this.refused = { status: response.statusCode, body };
                this.waiters.wake();
            });
        });
        this.socket.on('open', () => {
            this.opened = true;
            this.waiters.wake();
        });
        await this.waiters.until(() => this.opened || this.closed || this.refused,
            () => `the WebSocket to open; ${this.error}\n${this.bridge.log.slice(-2000)}`);
        return this;
    }

    send(message) {
        this.socket.send(typeof message === 'string' || Buffer.isBuffer(message) ? message : JSON.stringify(message));
    }

    /** Many at once, in few writes: on some machines a system call takes a tenth of a millisecond. */
    sendTogether(messages) {
        this.socket._socket.cork();
        messages.forEach((message) => this.send(message));
        this.socket._socket.uncork();
    }

    /** The first message that matches and has not been taken yet; those before it stay. */
    async take(match, ms = deadlineMs) {
        const fits = matcher(match);
        let looked = 0, taken = this.taken; // what has been looked at once is not again: there may be thousands
        const i = await this.waiters.until(() => {
            if (taken !== this.taken) {
                looked = 0;
                ({ taken } = this);
            }
            for (; looked < this.messages.length; looked++) {
                if (fits(this.messages[looked])) {
                    return { at: looked };
                }
            }
            return undefined;
        }, () => `${JSON.stringify(match) ?? match}; came: ${this.texts.slice(-5).join('\n').slice(-1500)} `
            + `closed: ${JSON.stringify(this.closed)}\n${this.bridge.log.slice(-2000)}`, ms);
        this.taken++;
        this.texts.splice(i.at, 1);
        return this.messages.splice(i.at, 1)[0];
    }

    /** The next message, whatever it is. */
    next() {
        return this.take(() => true);
    }

    /** Everything the server had to say before the answer to a ping has come; taken out. */
    async rest() {
        this.send({ type: 'ping' });
        await this.take('pong');
        this.taken++;
        this.texts.length = 0;
        return this.messages.splice(0);
    }

    /** Subscribes and takes the answer: {subscribed, records (by id), deleted (by id), pages, seq, epoch}. */
    async subscribe(collection, metadata) {
        this.send({ type: 'subscribe', collection, ...(metadata ? { metadata } : {}) });
        return this.subscribed(collection, metadata?.since !== undefined);
    }

    async subscribed(collection, always = false) {
        const subscribed = await this.take({ type: 'subscribed', collection });
        const answer = { subscribed, records: new Map(), deleted: new Map(), pages: [], ...subscribed.metadata };
        if (always || subscribed.metadata.recordCount > 0) {
            await this.pages(collection, answer);
        }
        return answer;
    }

    async pages(collection, answer = { records: new Map(), deleted: new Map(), pages: [] }) {
        for (let more = true; more;) {
            const page = await this.take({ type: 'sync', collection });
            answer.pages.push(page);
            page.data.records.forEach((record) => answer.records.set(record.id, record));
            page.data.deleted?.forEach((record) => {
                answer.records.delete(record.id);
                answer.deleted.set(record.id, record);
            });
            ({ more } = page.metadata);
            answer.seq = page.metadata.seq;
            answer.epoch = page.metadata.epoch;
        }
        return answer;
    }

    /** A write with a mutationId of its own; resolves with the answer. */
    write(type, collection, recordId, data, metadata = {}) {
        const mutationId = metadata.mutationId ?? `m${process.pid}-${++WsClient.mutations}`;
        this.send({ type, collection, recordId, ...(data ? { data } : {}), metadata: { mutationId, ...metadata } });
        return this.take((m) => (m.type === 'ack' || m.type === 'error') && m.metadata?.mutationId === mutationId);
    }

    close() {
        this.socket.close();
        return this.waiters.until(() => this.closed, () => 'the WebSocket to close');
    }

    waitClosed(ms = deadlineMs) {
        return this.waiters.until(() => this.closed, () => `the server to close; came: ${this.texts.join('\n').slice(-1000)}`, ms);
    }
}
WsClient.mutations = 0;

export class Bridge {
    /**
     * @param {Broker} broker
     * @param {object} config mqsync.json without the addresses
     * @param {object} [options] database: false to read through the broker; env: more of the environment; under: a command
     *     line to put before the bridge's
     */
    constructor(broker, config = {}, options = {}) {
        this.broker = broker;
        this.options = options;
        this.file = path.join(broker.directory, `bridge-${++Bridge.count}.json`);
        this.log = '';
        this.violations = [];
        this.clients = new Set();
        this.waiters = new Waiters();
        this.write(config);
    }

    static async start(broker, config, options) {
        const bridge = new Bridge(broker, config, options);
        try {
            return await bridge.start();
        } catch (error) {
            await bridge.kill();
            throw error;
        }
    }

    write(config) {
        fs.writeFileSync(this.file, JSON.stringify({
            ...config,
            database: this.options.database === false ? null : this.broker.database,
            bridge: { listen: `127.0.0.1:${this.port ?? 0}`, broker: `mqtt://127.0.0.1:${this.broker.port}`, ...config.bridge },
        }, null, 2));
    }

    spawn(...args) {
        const [command, ...rest] = [...(this.options.under ?? []), ...wrapper, bridgeProgram, '--config', this.file, ...args];
        this.exit = undefined;
        this.process = spawn(command, rest, { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, ...this.options.env } });
        this.process.stdout.setEncoding('utf8');
        this.process.stdout.on('data', (text) => {
            this.output = (this.output ?? '') + text;
            this.waiters.wake();
        });
        alive.add(this);
        this.process.stderr.setEncoding('utf8');
        this.process.stderr.on('data', (text) => {
            this.log += text;
            this.waiters.wake();
        });
        this.exited = new Promise((resolve) => {
            this.process.once('close', (code, signal) => {
                this.exit = { code, signal };
                alive.delete(this);
                this.waiters.wake();
                resolve(this.exit);
            });
        });
    }

    async start({ up = true } = {}) {
        const mark = this.log.length;
        this.spawn();
        const said = (pattern) => this.waiters.until(() => {
            if (this.exit) {
                throw new Error(`the bridge has ended (${JSON.stringify(this.exit)}):\n${this.log.slice(mark)}`);
            }
            return pattern.exec(this.log.slice(mark));
        }, () => `${pattern} in the bridge's log:\n${this.log.slice(mark)}`);
        const [, port] = await said(/MQS3001: listening on \S+:(\d+)/);
        this.port = Number(port);
        if (up) {
            await said(/MQS3010: connected/);
        }
        return this;
    }

    waitForLog(pattern, from = 0) {
        return this.waiters.until(() => pattern.exec(this.log.slice(from)), () => `${pattern} in the bridge's log:\n${this.log.slice(from)}`);
    }

    url(where = '/ws') {
        return `ws://127.0.0.1:${this.port}${where}`;
    }

    /** options: those of `ws`, and seen(text): called with each message before anything is done with it. */
    async client(where = '/ws', { seen, ...options } = {}) {
        const client = new WsClient(this, this.url(where), options);
        client.seen = seen;
        this.clients.add(client);
        return client.open();
    }

    async get(where) {
        const response = await fetch(`http://127.0.0.1:${this.port}${where}`);
        return { status: response.status, text: await response.text(), type: response.headers.get('content-type') };
    }

    /** The value of one line of /metrics. */
    async metric(name) {
        const { text } = await this.get('/metrics');
        const line = text.split('\n').find((l) => l.startsWith(`mqsync_bridge_${name} `));
        assert.ok(line, `${name} in /metrics:\n${text}`);
        return Number(line.split(' ')[1]);
    }

    async kill() {
        if (this.process && !this.exit) {
            this.process.kill('SIGKILL');
            await this.exited;
        }
    }

    async terminate() {
        assert.ok(!this.exit, `the bridge was dead already (${JSON.stringify(this.exit)}):\n${this.log.slice(-3000)}`);
        this.process.kill('SIGTERM');
        await withDeadline(this.exited, () => `the bridge to exit:\n${this.log.slice(-3000)}`, 15_000 * patience);
        assert.deepEqual(this.exit, { code: 0, signal: null }, `how the bridge ended:\n${this.log.slice(-5000)}`);
    }

    async stop() {
        try {
            await this.terminate();
            assert.deepEqual(this.violations, [], 'messages that break the contract');
        } finally {
            for (const client of this.clients) {
                client.socket?.terminate();
            }
            await this.kill();
        }
    }
}
Bridge.count = 0;

/** Both, for tests that need nothing special. */
export async function startBoth(config = {}, options = {}) {
    const broker = await Broker.start({ config, ...options.broker });
    const bridge = await Bridge.start(broker, config, options).catch(async (error) => {
        await broker.kill();
        broker.removeDirectory();
        throw error;
    });
    return { broker, bridge, stop: () => bridge.stop().finally(() => broker.stop()) };
}
