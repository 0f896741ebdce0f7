// SPDX-License-Identifier: BSD-3-Clause
// Runs what a document shows. An example is a fenced block with a comment such as <!-- exchange --> on the line before.
// The kinds:
//
//   mosquitto.conf   the broker's configuration; paths and port are replaced. Starts a new broker
//   mqsync.json      the plugin's configuration. Starts a new broker with it, and the last mosquitto.conf
//   acl.file         the broker must start with it as acl_file
//   log              what the broker has logged, line by line
//   console          `$ command` lines, each followed by what it prints
//   watch            one `$ command` that goes on running; `prints` blocks after it show what it has printed since
//   merge            a conflict: stored, the write, and what becomes of it; the heading above names the collection
//   exchange         clients by name, what they publish (->) and all they receive (<-): see exchange()
//
// Each is run again and gives a text, which has to be the block's own but for times of today and epochs.
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { Broker } from '../lib/broker.mjs';
import { ctl, plugin, repository } from '../lib/env.mjs';
import { poll } from '../lib/wait.mjs';

const TIME = /\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z/g;
const EPOCH = /\b[0-9a-f]{32}\b/g;
const DAY_MS = 24 * 60 * 60 * 1000;

/** The marked blocks of a document, in order: {kind, text, from, to, line, heading}; from and to are offsets. */
export function findExamples(document) {
    const examples = [];
    for (const found of document.matchAll(/^<!-- ([a-z.]+) -->\n```[a-z]*\n([^]*?\n)```$/gm)) {
        const from = found.index + found[0].length - '```'.length - found[2].length;
        const before = document.slice(0, found.index);
        examples.push({ kind: found[1], text: found[2], from, to: from + found[2].length,
            line: before.split('\n').length, heading: before.match(/^#+ .*$/gm)?.at(-1).replace(/[#`]+ ?/g, '') });
    }
    return examples;
}

/**
 * `now` with what differs from run to run as `then` has it: epochs, and times of today where `then` has none
 * that was sent.
 */
export function alike(now, then, sent) {
    const times = [...then.matchAll(TIME)].map(([text]) => text);
    const epochs = [...then.matchAll(EPOCH)].map(([text]) => text);
    let time = 0, epoch = 0;
    return now
        .replace(TIME, (text) => {
            const shown = times[time++];
            const live = Math.abs(Date.parse(text) - Date.now()) < DAY_MS;
            return live && shown && !sent.has(shown) ? shown : text;
        })
        .replace(EPOCH, (text) => epochs[epoch++] ?? text);
}

export class Runner {
    constructor() {
        this.clients = new Map();
        this.sent = new Set();
    }

    // --- the broker --------------------------------------------------------------------------------------------

    /** Starts a broker with mosquitto.conf and mqsync.json as shown, either may be missing. */
    async startBroker({ conf, json }) {
        await this.stop();
        const options = { config: json ?? '{}', conf: ['log_type subscribe'] };
        if (conf) {
            options.write = (broker) => this.#localConfiguration(conf, broker);
        }
        this.broker = await Broker.start(options);
        const home = path.join(this.broker.directory, 'config');
        fs.mkdirSync(home);
        for (const name of ['mosquitto_pub', 'mosquitto_sub', 'mosquitto_rr']) {
            fs.writeFileSync(path.join(home, name), `-h 127.0.0.1\n-p ${this.broker.port}\n`);
        }
        const PATH = `${path.dirname(ctl)}:${process.env.PATH}`;
        this.env = { ...process.env, XDG_CONFIG_HOME: home, LC_ALL: 'C.UTF-8', PATH };
        this.places ??= this.#databases(this.broker);
        this.places.push(['process 1234', `process ${this.broker.pid}`]);
    }

    #databases(broker) {
        return [['/var/lib/mqsync', broker.database], ['/var/backups/mqsync', path.join(broker.directory, 'backup')]];
    }

    /** A text with places of this machine instead of the document's, or the other way round. */
    #move(text, toShown) {
        return this.places.reduce((moved, [shown, here]) =>
            (toShown ? moved.replaceAll(here, shown) : moved.replaceAll(shown, here)), text);
    }

    #localConfiguration(conf, broker) {
        fs.mkdirSync(broker.database, { recursive: true });
        this.places = [
            ['/usr/lib/x86_64-linux-gnu/mosquitto_mqsync.so', plugin],
            ['/etc/mqsync/mqsync.json', broker.configFile],
            ...this.#databases(broker),
            ['listener 1883', `listener ${broker.port}`],
        ];
        return ['log_type subscribe', ...this.#move(conf).trim().split('\n')];
    }

    async tryAclFile(text) {
        const broker = new Broker({ conf: ['acl_file DIR/acl'], ask: false });
        fs.writeFileSync(path.join(broker.directory, 'acl'), text);
        await broker.start();
        await broker.stop();
    }

    async stop() {
        this.watcher?.process.kill('SIGTERM');
        this.watcher = undefined;
        if (this.broker) {
            for (const client of this.clients.values()) {
                await client.close();
            }
            this.clients.clear();
            await this.broker.stop();
            this.broker = undefined;
            this.places = undefined;
        }
    }

    /** The lines of the broker's log that the document shows, as they are here; a line that is not there is missing. */
    log(text) {
        const log = this.#move(this.broker.log.replace(/^\d+: /gm, ''), true);
        const lines = log.split('\n');
        return text.trimEnd().split('\n').map((line) => lines.find((l) => alike(l, line, this.sent) === line) ??
            `(not logged; the log is)\n${log}`).join('\n') + '\n';
    }

    /** A time that was sent is to come out as it is. */
    #noteTimes(text) {
        for (const [time] of text.matchAll(TIME)) {
            this.sent.add(time);
        }
    }

    // --- commands ----------------------------------------------------------------------------------------------

    #spawn(command) {
        return spawn('bash', ['-c', command], { env: this.env, cwd: repository, stdio: ['ignore', 'pipe', 'pipe'] });
    }

    async #output(command) {
        const child = this.#spawn(this.#move(command));
        let output = '';
        for (const stream of [child.stdout, child.stderr]) {
            stream.setEncoding('utf8').on('data', (text) => { output += text; });
        }
        await new Promise((resolve) => { child.once('close', resolve); });
        const shown = this.#move(output, true);
        return shown && !shown.endsWith('\n') ? `${shown}\n` : shown;
    }

    async console(text) {
        let result = '';
        // A command may go on in the next line after a backslash.
        for (const [, command] of text.matchAll(/^\$ ((?:.*\\\n)*.*)$/gm)) {
            this.#noteTimes(command);
            result += `$ ${command}\n${await this.#output(command)}`;
        }
        return result;
    }

    async watch(text) {
        const from = this.broker.log.length;
        const command = text.replace(/^\$ /, '').trimEnd();
        const child = this.#spawn(`exec ${command}`);
        const watcher = { process: child, output: '', shown: 0 };
        for (const stream of [child.stdout, child.stderr]) {
            stream.setEncoding('utf8').on('data', (data) => { watcher.output += data; });
        }
        this.watcher = watcher;
        await this.broker.waitForLog(/^\d+: \S+ [012] \S+$/m, from);
        return text;
    }

    /** What the watching command has printed since it was last looked at: at least as many lines as are shown. */
    async prints(text) {
        const { watcher } = this;
        const lines = text.split('\n').length;
        const enough = () => watcher.output.slice(watcher.shown).split('\n').length >= lines;
        await poll(enough, 'the watching command to print').catch(() => {}); // the comparison says what is missing
        const result = watcher.output.slice(watcher.shown);
        watcher.shown = watcher.output.length;
        return result;
    }

    // --- exchanges ---------------------------------------------------------------------------------------------

    /**
     *   ana connects (MQTT 5)                             also: (MQTT 3.1.1, user ana)
     *   ana subscribes to sync/todos/evt/# (no local)
     *   ana -> sync/todos/cmd/1/update (qos 0, ifVersion: 1)
     *       {"done":true}                                 the payload, indented
     *   ana <- PUBACK 0x87                                a refusal
     *   bob <- sync/todos/evt/1 (retained)
     *       {"type":"update", ...}
     *   ana disconnects
     *
     * Gives the same lines with everything that was received after each step.
     */
    async exchange(text) {
        const steps = [];
        for (const line of text.trimEnd().split('\n')) {
            if (line.startsWith('    ')) {
                steps.at(-1).payload = line.trim();
            } else {
                steps.push({ line });
            }
        }
        let result = '';
        for (const step of steps.filter(({ line }) => line && !/^\S+ <- /.test(line))) {
            const payload = step.payload === undefined ? '' : `    ${step.payload}\n`;
            result += `${step.line}\n${payload}${await this.#step(step)}`;
        }
        return result;
    }

    async #step({ line, payload }) {
        const [, name, action, rest] = /^(\S+) (connects|disconnects|subscribes to|->) ?(.*)$/.exec(line) ?? [];
        const [, target, details] = /^(\S*) ?(?:\((.*)\))?$/.exec(rest ?? '') ?? [];
        let refusal = '';
        if (action === 'connects') {
            await this.#connect(name, details ?? '');
        } else if (action === 'disconnects') {
            await this.clients.get(name).close();
            this.clients.delete(name);
        } else if (action === 'subscribes to') {
            await this.clients.get(name).subscribe(target, { nl: details === 'no local' });
        } else if (action === '->') {
            const reason = await this.#publish(this.clients.get(name), target, details, payload);
            refusal = reason >= 128 ? `${name} <- PUBACK 0x${reason.toString(16)}\n` : '';
        } else {
            throw new Error(`what is this step: ${line}`);
        }
        return refusal + await this.#received();
    }

    /** stored TIME DATA, then update or insert TIME DATA with a baseVersion that never was. */
    async merge(text, collection) {
        const writer = await this.broker.client();
        const [stored, write] = text.split('\n').map((line) => /^(\w+) +(\S+) +(.*)$/.exec(line));
        const recordId = `r${this.merges = (this.merges ?? 0) + 1}`;
        await writer.write('long', { type: 'insert', collection, recordId, timestamp: stored[2], data: stored[3] });
        await writer.write('long', { type: write[1], collection, recordId, timestamp: write[2], data: write[3],
            metadata: { baseVersion: 0 } });
        await writer.cmd(collection, { type: 'sync' });
        const page = await writer.answerPacket('sync');
        await writer.close();
        const data = new RegExp(`"id":"${recordId}","data":(.*?),"version":`).exec(page.text)[1];
        return `${stored[0]}\n${write[0]}\n${'becomes'.padEnd(stored[0].length - stored[3].length)}${data}\n`;
    }

    async #connect(name, details) {
        const user = /user (\S+)/.exec(details)?.[1];
        const client = await this.broker.client({ clientId: name, version: details.includes('MQTT 5') ? 5 : 4,
            ...(user && { username: user, password: 'secret' }) });
        client.told = 0;
        this.clients.set(name, client);
    }

    #publish(client, topic, details, payload = '') {
        const options = {}, properties = {}, userProperties = {};
        for (const [, key, value] of (details ?? '').matchAll(/(\w+):? ([^,]+)(?:, |$)/g)) {
            if (key === 'qos') {
                options.qos = Number(value);
            } else if (key === 'responseTopic') {
                properties.responseTopic = value;
                client.answerTopics.add(value);
            } else if (key === 'correlationData') {
                properties.correlationData = Buffer.from(value);
            } else {
                userProperties[key] = value;
            }
        }
        this.#noteTimes(`${payload} ${details ?? ''}`);
        if (Object.keys(userProperties).length) {
            properties.userProperties = userProperties;
        }
        return client.publish(topic, payload, { ...options, ...(Object.keys(properties).length && { properties }) });
    }

    /** Everything that has come to anybody; a ping behind it makes sure that it is here. */
    async #received() {
        let result = '';
        for (const [name, client] of this.clients) {
            const pong = (m) => m.topic.startsWith(`${this.broker.root}/doc-test/`);
            await client.cmd('doc-test', { type: 'ping' });
            await client.until(() => client.all.slice(client.told).some(pong), 'a pong');
            for (const message of client.all.slice(client.told).filter((m) => !pong(m))) {
                const { correlationData } = message.properties ?? {};
                const echo = correlationData ? ` (correlationData: ${correlationData})` : '';
                const details = message.retain ? ' (retained)' : echo;
                result += `${name} <- ${message.topic}${details}\n    ${message.text || '(empty)'}\n`;
            }
            client.told = client.all.length;
        }
        return result;
    }
}

/** Runs a document's examples. Yields {example, text}: what each one gives here. */
export async function* runExamples(examples) {
    const runner = new Runner();
    let conf;
    try {
        for (const example of examples) {
            let { text } = example;
            if (example.kind === 'mosquitto.conf') {
                conf = text;
                await runner.startBroker({ conf });
            } else if (example.kind === 'mqsync.json') {
                await runner.startBroker({ conf, json: text });
            } else if (example.kind === 'acl.file') {
                await runner.tryAclFile(text);
            } else if (['log', 'console', 'watch', 'prints', 'merge', 'exchange'].includes(example.kind)) {
                text = await runner[example.kind](text, example.heading);
            } else {
                throw new Error(`line ${example.line}: there are no examples of the kind "${example.kind}"`);
            }
            yield { example, text: alike(text, example.text, runner.sent) };
        }
    } finally {
        await runner.stop();
    }
}
