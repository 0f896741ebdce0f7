// SPDX-License-Identifier: BSD-3-Clause
// Runs what a document shows. An example is a fenced block with a comment such as <!-- exchange --> on the line before.
// The kinds:
//
//   quickstart       what conf/quickstart prints. Starts a new broker with the configurations that it takes
//   mosquitto.conf   the broker's configuration; paths and port are replaced. Starts a new broker
//   mqsync.json      configuration of plugin and bridge. Starts a new broker with it, and the last mosquitto.conf
//   acl.file         the broker must start with it as acl_file
//   file             its first line is a comment with its name: it is there for the commands after it
//   log              what the broker has logged, line by line
//   bridge           what the bridge has logged, line by line. Starts a bridge beside the broker if none is there
//   console          `$ command` lines, each followed by what it prints. NAME=$(...) is remembered, and
//                    systemctl start, stop, restart and reload mean the broker and the bridge of the document
//   start            one `$ command` that goes on running, and what it prints at first
//   stop             the same command, all it has printed, and ^C
//   watch            one `$ command` that goes on running; `prints` blocks after it show what it has printed since
//   merge            a conflict: stored, the write, and what becomes of it; the heading above names the collection
//   exchange         clients by name, what they publish (->) and all they receive (<-): see exchange()
//   conversation     the same over WebSockets: see conversation.mjs
//
// Each is run again and gives a text, which has to be the block's own but for times of today and epochs.
import { spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { Bridge } from '../lib/bridge.mjs';
import { Broker, freePort, temporaryDirectory } from '../lib/broker.mjs';
import { ctl, plugin, repository } from '../lib/env.mjs';
import { poll } from '../lib/wait.mjs';
import { Conversation } from './conversation.mjs';

const TIME = /\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z/g;
const EPOCH = /\b[0-9a-f]{32}\b|(?<=mqsync-bridge-)[0-9a-f]{8}\b/g; // and the bridge's name in the broker
const DAY_MS = 24 * 60 * 60 * 1000;
const KINDS = ['quickstart', 'log', 'file', 'console', 'start', 'watch', 'prints', 'merge', 'exchange']; // methods of Runner
const children = new Set();

process.on('exit', () => children.forEach((child) => child.kill('SIGKILL')));

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
        this.conversation = new Conversation(this);
        // what the document keeps in /etc and what its commands leave behind
        this.home = temporaryDirectory();
        this.work = path.join(this.home, 'work');
        for (const directory of ['work', 'config', 'etc/mqsync', 'etc/mosquitto']) {
            fs.mkdirSync(path.join(this.home, directory), { recursive: true });
        }
        fs.symlinkSync(path.join(repository, 'tests/node_modules'), path.join(this.work, 'node_modules'));
        fs.symlinkSync(path.join(repository, 'tests'), path.join(this.work, 'tests'));
        this.started = [];
        const PATH = `${path.dirname(ctl)}:/usr/sbin:${process.env.PATH}`;
        this.env = { ...process.env, XDG_CONFIG_HOME: path.join(this.home, 'config'), LC_ALL: 'C.UTF-8', PATH };
    }

    async prepare() {
        this.always = [
            ['/etc/mqsync', path.join(this.home, 'etc/mqsync')],
            ['/etc/mosquitto', path.join(this.home, 'etc/mosquitto')],
            ['127.0.0.1:3000', `127.0.0.1:${await freePort()}`],
        ];
        this.places = this.always;
    }

    // --- the broker --------------------------------------------------------------------------------------------

    /** Starts a broker with mosquitto.conf and mqsync.json as shown, either may be missing. */
    async startBroker({ conf, json }) {
        await this.stop();
        const options = { conf: ['log_type subscribe'] };
        if (conf) {
            options.write = () => ['log_type subscribe', ...this.#move(conf).trim().split('\n')];
            options.ask = conf.includes('allow_anonymous true');
            options.login = this.#login(conf);
        }
        this.broker = new Broker(options);
        this.broker.ports = [await freePort()];
        this.httpPort = await freePort();
        fs.mkdirSync(this.broker.database, { recursive: true });
        this.places = [
            ['/usr/lib/x86_64-linux-gnu/mosquitto_mqsync.so', plugin],
            ['/etc/mqsync/mqsync.json', this.broker.configFile],
            ...this.always,
            ['/var/lib/mqsync', this.broker.database],
            ['/var/backups/mqsync', path.join(this.broker.directory, 'backup')],
            ['listener 1883', `listener ${this.broker.port}`],
            ['127.0.0.1:1883', `127.0.0.1:${this.broker.port}`],
            ['127.0.0.1:8080', `127.0.0.1:${this.httpPort}`],
        ];
        options.config = this.#configuration(json ?? '{}');
        await this.broker.start();
        this.places.push(['process 1234', `process ${this.broker.pid}`]);
        for (const name of ['mosquitto_pub', 'mosquitto_sub', 'mosquitto_rr']) {
            fs.writeFileSync(path.join(this.home, 'config', name), `-h 127.0.0.1\n-p ${this.broker.port}\n`);
        }
    }

    /** mqsync.json for this machine, with the bridge's addresses also where the document leaves them out. */
    #configuration(json) {
        const config = JSON.parse(this.#move(json));
        const addresses = { listen: `127.0.0.1:${this.httpPort}`, broker: `mqtt://127.0.0.1:${this.broker.port}` };
        return { database: this.broker.database, ...config, bridge: { ...addresses, ...config.bridge } };
    }

    /** A user of the runner's own, where the broker asks for a password. */
    #login(conf) {
        const file = /^password_file (.*)$/m.exec(conf)?.[1];
        if (!file) {
            return undefined;
        }
        spawnSync('mosquitto_passwd', ['-b', this.#move(file), 'doc-test', 'secret']);
        return { username: 'doc-test', password: 'secret' };
    }

    /** With what conf/quickstart starts, and its own greeting, with the ports that it takes and the document's places. */
    async quickstart(text) {
        const read = (name) => fs.readFileSync(path.join(repository, 'conf', name), 'utf8');
        await this.startBroker({ conf: read('mosquitto.conf'), json: read('mqsync.json') });
        const [, build] = /^Records +(\S+)\/state\/db$/m.exec(text);
        const [greet] = /^greet\(\)\n\{\n[^]*?\n\}\n/m.exec(read('quickstart'));
        const settings = `build=${build} state=${build}/state mqtt_port=1883 http_port=8080`;
        const { stdout } = spawnSync('bash', ['-c', `${settings}\n${greet}greet`], { encoding: 'utf8' });
        return `$ conf/quickstart\nBuilding into build/quickstart\n${stdout}`;
    }

    async startBridge(options) {
        this.bridge = new Bridge(this.broker);
        this.bridge.file = this.broker.configFile;
        await this.bridge.start(options);
    }

    /** What `systemctl` would do to them; done when it is done. */
    async #systemctl(verb, unit) {
        const { broker, bridge } = this;
        const mark = bridge?.log.length;
        if (unit === 'mqsync-bridge') {
            if (verb === 'stop' || verb === 'restart') {
                await bridge.terminate();
            }
            if (verb === 'start' || verb === 'restart') {
                await bridge.start({ up: false });
                await bridge.waitForLog(/MQS301[0-3]/, mark); // connected, or why not
            } else if (verb === 'reload') {
                bridge.process.kill('SIGHUP');
                await bridge.waitForLog(/MQS300[34]/, mark);
            }
            return;
        }
        if (verb === 'reload') {
            const from = broker.log.length;
            broker.reload();
            await broker.waitForLog(/MQS10(07|09)/, from);
            return;
        }
        if (verb === 'stop' || verb === 'restart') {
            await broker.terminate();
            await (bridge?.exit ? undefined : bridge?.waitForLog(/MQS3011/, mark));
        }
        if (verb === 'start' || verb === 'restart') {
            await broker.start();
            if (bridge && !bridge.exit) {
                await bridge.waitForLog(/MQS3010/, mark);
                await this.#caughtUp();
            }
        }
    }

    /** Back from its broker a bridge brings all subscriptions up to date; the second answer comes after that. */
    async #caughtUp() {
        const { auth, collections = { '*': {} } } = JSON.parse(fs.readFileSync(this.broker.configFile, 'utf8'));
        const [name] = Object.entries(collections).find(([, { read = ['*'] }]) => read.includes('*'));
        const collection = name === '*' ? 'doc-test' : name;
        const command = 'mqsyncctl --config /etc/mqsync/mqsync.json token --user doc-test';
        const client = await this.bridge.client(`/ws?token=${auth ? (await this.#output(command)).trim() : ''}`);
        for (let i = 0; i < 2; i++) {
            client.send({ type: 'sync', collection });
            await client.pages(collection);
        }
        await client.close();
    }

    /** A text with places of this machine instead of the document's, or the other way round. */
    #move(text, toShown) {
        return this.places.reduce((moved, [shown, here]) =>
            (toShown ? moved.replaceAll(here, shown) : moved.replaceAll(shown, here)), text);
    }

    /** A text of the document with the places of this machine. */
    here(text) {
        return this.#move(text);
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
        this.conversation.reset();
        if (this.bridge) {
            await (this.bridge.exit ? this.bridge.kill() : this.bridge.stop());
            this.bridge = undefined;
        }
        if (this.broker) {
            for (const client of this.clients.values()) {
                await client.close();
            }
            this.clients.clear();
            await this.broker.stop();
            this.broker = undefined;
            this.places = this.always;
        }
    }

    async end() {
        for (const started of this.started.reverse()) {
            started.process.kill('SIGKILL');
            await started.ended;
        }
        await this.stop();
        fs.rmSync(this.home, { recursive: true, force: true });
    }

    /** The lines of the broker's log that the document shows, as they are here; a line that is not there is missing. */
    log(text) {
        return this.#lines(text, this.broker.log.replace(/^\d+: /gm, ''));
    }

    async bridgeLog(text) {
        if (!this.bridge) {
            await this.startBridge({ up: text.includes('MQS3010') });
        }
        const all = (log) => text.trimEnd().split('\n').every((line) => this.#find(line, log));
        // what is missing the comparison says
        await this.bridge.waiters.until(() => all(this.bridge.log), () => text).catch(() => {});
        return this.#lines(text, this.bridge.log);
    }

    #find(line, log) {
        return this.#move(log, true).split('\n').find((l) => alike(l, line, this.sent) === line);
    }

    #lines(text, log) {
        return text.trimEnd().split('\n').map((line) => this.#find(line, log) ??
            `(not logged; the log is)\n${this.#move(log, true)}`).join('\n') + '\n';
    }

    file(text) {
        const [, name] = /^\S+ (\S+)$/m.exec(text);
        fs.writeFileSync(path.join(this.work, path.basename(name)), this.#move(text));
        return text;
    }

    /** A time that was sent is to come out as it is. */
    noteTimes(text) {
        for (const [time] of text.matchAll(TIME)) {
            this.sent.add(time);
        }
    }

    // --- commands ----------------------------------------------------------------------------------------------

    #spawn(command) {
        return spawn('bash', ['-c', command], { env: this.env, cwd: this.work, stdio: ['ignore', 'pipe', 'pipe'] });
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
            this.noteTimes(command);
            result += `$ ${command}\n${await this.#command(command)}`;
        }
        return result;
    }

    async #command(command) {
        const [, verb, unit] = /^systemctl (start|stop|restart|reload) (mosquitto|mqsync-bridge)$/.exec(command) ?? [];
        const [, name, value] = /^([A-Z_]+)=(\$\(.*\))$/.exec(command) ?? [];
        if (verb) {
            await this.#systemctl(verb, unit);
            return '';
        }
        if (name) {
            this.env[name] = (await this.#output(`printf %s "${value}"`)).trimEnd();
            return '';
        }
        return this.#output(command);
    }

    #start(command) {
        const child = this.#spawn(`exec ${this.#move(command)}`);
        children.add(child);
        child.once('close', () => children.delete(child));
        const started = { command, process: child, output: '', shown: 0 };
        started.ended = new Promise((resolve) => { child.once('close', resolve); });
        for (const stream of [child.stdout, child.stderr]) {
            stream.setEncoding('utf8').on('data', (data) => { started.output += data; });
        }
        return started;
    }

    /** What it has printed since it was last looked at: at least as many lines as are shown. */
    async #said(started, shown) {
        const lines = shown.split('\n').length;
        const enough = () => started.output.slice(started.shown).split('\n').length >= lines;
        await poll(enough, 'a command to print').catch(() => {}); // the comparison says what is missing
        const result = started.output.slice(started.shown);
        started.shown = started.output.length;
        return this.#move(result, true);
    }

    async start(text) {
        const [, command, shown] = /^\$ (.*\n)([^]*)$/.exec(text);
        const started = this.#start(command.trim());
        this.started.push(started);
        return `$ ${command}${await this.#said(started, shown)}`;
    }

    async interrupt(text) {
        const command = /^\$ (.*)$/m.exec(text)[1];
        const i = this.started.findIndex((started) => started.command === command);
        const [started] = this.started.splice(i, 1);
        started.process.kill('SIGINT');
        await started.ended;
        return `$ ${command}\n${this.#move(started.output, true)}^C\n`;
    }

    async watch(text) {
        const from = this.broker.log.length;
        this.watcher?.process.kill('SIGTERM');
        this.watcher = this.#start(text.replace(/^\$ /, '').trimEnd());
        // it has subscribed: the broker says so, or it has got something already
        const subscribed = () => this.watcher.output || /^\d+: \S+ [012] \S+$/m.test(this.broker.log.slice(from));
        await poll(subscribed, `${text} to subscribe`);
        return text;
    }

    prints(text) {
        return this.#said(this.watcher, text);
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
        this.noteTimes(`${payload} ${details ?? ''}`);
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
        await runner.prepare();
        for (const example of examples) {
            let { text } = example;
            if (example.kind === 'mosquitto.conf') {
                conf = text;
                await runner.startBroker({ conf });
            } else if (example.kind === 'mqsync.json') {
                await runner.startBroker({ conf, json: text });
            } else if (example.kind === 'acl.file') {
                await runner.tryAclFile(text);
            } else if (example.kind === 'bridge') {
                text = await runner.bridgeLog(text);
            } else if (example.kind === 'stop') {
                text = await runner.interrupt(text);
            } else if (example.kind === 'conversation') {
                text = await runner.conversation.run(text);
            } else if (KINDS.includes(example.kind)) {
                text = await runner[example.kind](text, example.heading);
            } else {
                throw new Error(`line ${example.line}: there are no examples of the kind "${example.kind}"`);
            }
            yield { example, text: alike(text, example.text, runner.sent) };
        }
    } finally {
        await runner.end();
    }
}
