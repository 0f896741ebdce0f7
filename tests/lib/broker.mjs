// SPDX-License-Identifier: BSD-3-Clause
// A Mosquitto of the test's own: free ports, its own directory, ready when it has answered, its log kept.
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { Client } from './client.mjs';
import { brokerProgram, ctl, deadlineMs, patience, plugin, preload, wrapper } from './env.mjs';
import { RawClient } from './raw-mqtt.mjs';
import { Waiters, withDeadline } from './wait.mjs';

const logTypes = process.env.MQSYNC_LOG_ALL
    ? ['log_type all']
    : ['error', 'warning', 'notice', 'information'].map((type) => `log_type ${type}`);
const alive = new Set();

process.on('exit', () => {
    for (const broker of alive) {
        broker.process?.kill('SIGKILL');
        broker.removeDirectory();
    }
});

for (const signal of ['SIGINT', 'SIGTERM']) {
    process.once(signal, () => process.exit(1)); // through 'exit' above: no broker is left behind
}

/** A port of 127.0.0.1 that nobody had a moment ago. */
export function freePort() {
    return new Promise((resolve, reject) => {
        const server = net.createServer();
        server.once('error', reject);
        server.listen(0, '127.0.0.1', () => {
            const { port } = server.address();
            server.close(() => resolve(port));
        });
    });
}

export function temporaryDirectory() {
    return fs.mkdtempSync(path.join(os.tmpdir(), 'mqsync-test-'));
}

export class Broker {
    /**
     * @param {object} [options]
     * @param {object|string|null} [options.config] mqsync.json (a string is written as it is); null: no
     * plugin_opt_config
     * @param {boolean} [options.plugin] false: the stock broker
     * @param {string[]} [options.conf] more lines for mosquitto.conf, before the listener
     * @param {string[]} [options.listener] lines for the listener
     * @param {string[]} [options.pluginOptions] more plugin_opt_ lines; a path may start with DIR/
     * @param {boolean} [options.dbPath] false: no plugin_opt_db_path
     * @param {(broker: Broker) => string[]} [options.write] replaces the whole of mosquitto.conf but its first lines
     * @param {boolean} [options.anonymous] allow_anonymous, default true
     * @param {object} [options.login] user and password with which readiness is asked
     * @param {string[]} [options.under] a command line put before the broker's
     * @param {number} [options.ports] how many ports to reserve, default 1
     * @param {string} [options.directory] somebody else's directory, to share its database
     */
    constructor(options = {}) {
        this.options = options;
        this.directory = options.directory ?? temporaryDirectory();
        this.ownsDirectory = !options.directory;
        this.configFile = path.join(this.directory, 'mqsync.json');
        this.database = path.join(this.directory, 'db');
        this.log = '';
        this.clients = new Set();
        this.violations = [];
        this.waiters = new Waiters();
        this.root = (typeof options.config === 'object' && options.config?.root) || 'sync';
    }

    /** A broker that is up and has answered. */
    static async start(options) {
        const broker = new Broker(options);
        try {
            await broker.start();
        } catch (error) {
            await broker.kill();
            broker.removeDirectory();
            throw error;
        }
        return broker;
    }

    get port() {
        return this.ports[0];
    }

    get pid() {
        return this.process.pid;
    }

    get running() {
        return Boolean(this.process) && !this.exit;
    }

    writeConfig(config) {
        fs.writeFileSync(this.configFile, typeof config === 'string' ? config : JSON.stringify(config, null, 2));
    }

    /** The lines that load the plugin, for a mosquitto.conf written by hand. */
    pluginLines() {
        const { options } = this;
        if (options.plugin === false) {
            return [];
        }
        const lines = [`plugin ${plugin}`];
        if (options.config !== null) {
            lines.push(`plugin_opt_config ${this.configFile}`);
        }
        if (options.dbPath !== false) {
            lines.push(`plugin_opt_db_path ${this.database}`);
        }
        return [
            ...lines,
            ...(options.pluginOptions ?? []).map((line) => line.replaceAll('DIR/', `${this.directory}/`)),
        ];
    }

    #configuration() {
        const { options } = this;
        const asRoot = process.getuid?.() === 0 ? ['user root'] : [];
        const head = [
            ...(options.head ?? []),
            ...asRoot,
            'log_dest stderr',
            ...logTypes,
            'connection_messages true',
            'set_tcp_nodelay true',
        ];
        if (options.write) {
            return [...head, ...options.write(this)];
        }
        return [
            ...head,
            ...(options.conf ?? []).map((line) => line.replaceAll('DIR/', `${this.directory}/`)),
            ...this.pluginLines(),
            `listener ${this.port} 127.0.0.1`,
            `allow_anonymous ${options.anonymous ?? true}`,
            ...(options.listener ?? []),
        ];
    }

    #spawn() {
        const file = path.join(this.directory, 'mosquitto.conf');
        fs.writeFileSync(file, `${this.#configuration().join('\n')}\n`);
        const [command, ...args] = [...(this.options.under ?? []), ...wrapper, brokerProgram, '-c', file];
        const env = { ...process.env, ...(preload ? { LD_PRELOAD: preload } : {}), ...this.options.env };
        this.exit = undefined;
        const child = spawn(command, args, { cwd: this.directory, env, stdio: ['ignore', 'pipe', 'pipe'] });
        this.process = child;
        alive.add(this);
        for (const stream of [child.stdout, child.stderr]) {
            stream.setEncoding('utf8');
            stream.on('data', (text) => {
                this.log += text;
                this.waiters.wake();
            });
        }
        this.exited = new Promise((resolve) => {
            child.once('close', (code, signal) => {
                this.exit = { code, signal };
                this.waiters.wake();
                resolve(this.exit);
            });
        });
    }

    /** Starts (again, on the same ports and state) and waits until it has answered. */
    async start() {
        if (this.options.config !== null && this.options.plugin !== false && !this.configWritten) {
            this.writeConfig(this.options.config ?? {});
            this.configWritten = true;
        }
        for (let attempt = 0; ; attempt++) {
            this.ports ??= await Promise.all(Array.from({ length: this.options.ports ?? 1 }, freePort));
            const mark = this.log.length;
            this.#spawn();
            if (await this.#answers(mark)) {
                return this;
            }
            const log = this.log.slice(mark);
            // Somebody took the port between our looking and the broker's binding; after a restart it has to be the
            // same one.
            if (attempt < 5 && log.includes('Address already in use') && !this.everAnswered) {
                this.ports = undefined;
                continue;
            }
            throw new Error(`the broker did not start (${JSON.stringify(this.exit)}):\n${log}`);
        }
    }

    /** Starts a broker that is expected to refuse to; resolves with what it said. */
    async startRefused() {
        if (this.options.config !== null && this.options.plugin !== false) {
            this.writeConfig(this.options.config ?? {});
        }
        this.ports ??= await Promise.all(Array.from({ length: this.options.ports ?? 1 }, freePort));
        const mark = this.log.length;
        this.#spawn();
        await withDeadline(
            this.exited,
            () => `the broker to refuse to start; its log:\n${this.log.slice(mark)}`,
        ).finally(() => this.running && this.kill());
        alive.delete(this);
        assert.notEqual(this.exit.code, 0, `exit status of a refused start; log:\n${this.log.slice(mark)}`);
        assert.equal(this.exit.signal, null, `died of a signal; log:\n${this.log.slice(mark)}`);
        return this.log.slice(mark);
    }

    async #answers(mark) {
        const end = Date.now() + deadlineMs;
        while (!this.exit && Date.now() < end) {
            const client = new RawClient({ port: this.port, version: 4, ...this.options.login });
            try {
                const connack = await client.connect({ clean: true });
                if (connack.returnCode === 0 && this.options.plugin !== false && this.options.ask !== false) {
                    await client.ask(`${this.root}/ready/cmd`, '{"type":"ping"}');
                }
                this.everAnswered = true;
                return true;
            } catch (error) {
                if (!/ECONNREFUSED|ECONNRESET|closed/.test(String(error))) {
                    throw new Error(`${error.message}\nlog:\n${this.log.slice(mark)}`);
                }
            } finally {
                client.destroy();
            }
            await new Promise((resolve) => setTimeout(resolve, 10));
        }
        return false;
    }

    /** A connected client (see client.mjs for the options). */
    async client(options = {}) {
        const client = new Client(this, options);
        this.clients.add(client);
        await client.connect();
        return client;
    }

    raw(options = {}) {
        return new RawClient({ port: this.port, ...options });
    }

    reload() {
        this.process.kill('SIGHUP');
    }

    async waitForLog(pattern, from = 0) {
        return this.waiters.until(
            () => pattern.exec(this.log.slice(from)),
            () => `${pattern} in the broker's log:\n${this.log.slice(from).slice(-3000)}`,
        );
    }

    /** Bytes of memory in use now and at most ever, from /proc. */
    memory() {
        const status = fs.readFileSync(`/proc/${this.pid}/status`, 'utf8');
        const field = (name) => Number(new RegExp(`${name}:\\s+(\\d+) kB`).exec(status)[1]) * 1024;
        return { now: field('VmRSS'), peak: field('VmHWM') };
    }

    async #gone() {
        await withDeadline(this.exited, () => `the broker to exit; log:\n${this.log.slice(-3000)}`, 30_000 * patience);
        alive.delete(this);
        for (const client of this.clients) {
            client.end();
        }
        this.clients.clear();
    }

    /** What the database holds of a collection, looked at from outside: [{id, version, data, ...}]. */
    stored(collection) {
        const args = ['--db', this.database, '--quiet', 'export', collection];
        try {
            const text = execFileSync(ctl, args, { encoding: 'utf8', maxBuffer: Infinity, stdio: ['ignore', 'pipe', 'pipe'] });
            return text.split('\n').filter(Boolean).map((line) => JSON.parse(line));
        } catch (error) {
            if (/no collection/.test(error.stderr)) {
                return [];
            }
            throw error;
        }
    }

    /** SIGTERM; fails when the broker died before or does not end cleanly. */
    async terminate() {
        assert.ok(!this.exit, `the broker was dead already (${JSON.stringify(this.exit)}):\n${this.log.slice(-3000)}`);
        await Promise.all([...this.clients].map((client) => client.close()));
        this.process.kill('SIGTERM');
        await this.#gone();
        assert.deepEqual(this.exit, { code: 0, signal: null }, `how the broker ended; log:\n${this.log.slice(-3000)}`);
    }

    async kill() {
        if (this.running) {
            this.process.kill('SIGKILL');
            await this.#gone();
        }
    }

    async restart({ kill = false } = {}) {
        await (kill ? this.kill() : this.terminate());
        await this.start();
    }

    /**
     * The end of a test's broker: it must still be there, stop cleanly, and nobody may have seen a malformed message.
     */
    async stop() {
        try {
            if (this.running || this.exit?.signal !== 'SIGKILL') {
                await this.terminate();
            }
            assert.deepEqual(this.violations, [], 'messages that break the contract');
        } finally {
            await this.kill();
            this.removeDirectory();
        }
    }

    removeDirectory() {
        if (this.ownsDirectory && !process.env.MQSYNC_KEEP) {
            fs.rmSync(this.directory, { recursive: true, force: true });
        }
    }
}
