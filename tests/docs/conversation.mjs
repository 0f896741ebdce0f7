// SPDX-License-Identifier: BSD-3-Clause
// Plays the WebSocket conversations of the documents:
//
//   ana connects to /ws?token=$ANA          or to a whole ws:// URL; $ANA is what the document's console has remembered
//   ana -> {"type":"subscribe", ...}        what a client sends
//   ana <- {"type":"subscribed", ...}       all that it receives
//   ana <- closed: 1008 AUTH_FAILED         by the server; that was ana's last
//   ana <- HTTP 403 {"type":"error", ...}   instead of a WebSocket
//   ana disconnects
//   sensor publishes to sync/todos/cmd/1/update {"done":true}     an MQTT client, without a name
//   the broker stops, the broker starts
//
// Gives the same lines with everything that was received after each step.
import { createRequire } from 'node:module';
import { checkServerMessage } from '../lib/shape.mjs';
import { Waiters } from '../lib/wait.mjs';

const require = createRequire(import.meta.url);
const WebSocket = require('ws');
const record = Boolean(process.env.MQSYNC_DOCS_RECORD);

const RECORD_MS = 700; // when nothing says yet how much is to come
const VIEW_MS = 150; // the bridge answers from a view of the database that is up to 100 ms old
const sleep = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });

export class Conversation {
    constructor(runner) {
        this.runner = runner;
        this.waiters = new Waiters();
        this.clients = new Map();
    }

    reset() {
        for (const { socket } of this.clients.values()) {
            socket.terminate();
        }
        this.clients.clear();
    }

    async run(text) {
        const steps = [];
        for (const line of text.trimEnd().split('\n')) {
            if (/^\S+ <- /.test(line)) {
                steps.at(-1).answers++;
            } else if (line) {
                steps.push({ line, answers: 0 });
            }
        }
        let result = '';
        for (const step of steps) {
            this.runner.noteTimes(step.line);
            await this.#step(step.line);
            result += `${step.line}\n${await this.#received(step.answers)}`;
        }
        return result;
    }

    #fill(text) {
        return text.replace(/\$([A-Z_]+)/g, (_, name) => this.runner.env[name]);
    }

    async #step(line) {
        const [, name, action, rest] = /^(\S+) (connects to|disconnects|publishes to|stops|starts|->) ?(.*)$/
            .exec(line.replace(/^the broker/, 'broker')) ?? [];
        if (action === 'connects to') {
            await sleep(VIEW_MS);
            this.#connect(name, rest);
        } else if (action === '->') {
            if (/"type":"(subscribe|sync|auth)"/.test(rest)) {
                await sleep(VIEW_MS);
            }
            this.clients.get(name).socket.send(this.#fill(rest));
        } else if (action === 'disconnects') {
            this.clients.get(name).socket.close();
            this.clients.delete(name);
        } else if (action === 'publishes to') {
            const [, topic, payload] = /^(\S+) ?(.*)$/.exec(rest);
            const device = await this.runner.broker.client({ clientId: name });
            await device.publish(topic, payload, { qos: 1 });
            await device.close();
        } else if (name === 'broker') {
            await this.runner.console(`$ systemctl ${action === 'stops' ? 'stop' : 'start'} mosquitto\n`);
        } else {
            throw new Error(`what is this step: ${line}`);
        }
    }

    #connect(name, where) {
        const [, path, origin] = /^(\S+)(?: from a page of (\S+))?$/.exec(where);
        const url = this.runner.here(path.startsWith('/') ? `ws://127.0.0.1:8080${path}` : path);
        const socket = new WebSocket(this.#fill(url), { origin });
        const client = { socket, lines: [], told: 0 };
        const hear = (line) => {
            client.lines.push(line);
            this.waiters.wake();
        };
        socket.on('message', (data) => {
            if (path.startsWith('/')) {
                checkServerMessage(data);
            }
            hear(data.toString());
        });
        socket.on('close', (code, reason) => hear(`closed: ${code} ${reason}`.trim()));
        socket.on('open', () => {
            client.open = true;
            this.waiters.wake();
        });
        socket.on('error', () => {}); // 'close' follows
        socket.on('unexpected-response', (request, response) => {
            let body = '';
            response.on('data', (chunk) => { body += chunk; });
            response.on('end', () => hear(`HTTP ${response.statusCode} ${body.trim()}`));
        });
        this.clients.set(name, client);
    }

    /** What has come to anybody since the last step, when it is as much as the document shows. */
    async #received(answers) {
        const fresh = () => [...this.clients.values()].reduce((n, { lines, told }) => n + lines.length - told, 0);
        const connected = () => [...this.clients.values()].every(({ open, lines }) => open || lines.length);
        await this.waiters.until(() => connected() && fresh() >= answers, () => 'answers')
            .catch(() => {}); // the comparison says what is missing
        if (record) {
            await sleep(RECORD_MS);
        }
        let result = '';
        for (const [name, client] of this.clients) {
            for (const line of client.lines.slice(client.told)) {
                result += `${name} <- ${line}\n`;
            }
            client.told = client.lines.length;
            if (client.socket.readyState === WebSocket.CLOSED) {
                this.clients.delete(name);
            }
        }
        return result;
    }
}
