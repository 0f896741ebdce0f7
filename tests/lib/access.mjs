// SPDX-License-Identifier: BSD-3-Clause
// Who may do what on a broker: everybody tries everything, and what happened is written down, so that two brokers can
// be compared.
import crypto from 'node:crypto';
import { RawClient } from './raw-mqtt.mjs';

/** A line of a password_file. */
export function passwordLine(username, password, iterations = 101) {
    const salt = crypto.randomBytes(12);
    const hash = crypto.pbkdf2Sync(password, salt, iterations, 64, 'sha512');
    return `${username}:$7$${iterations}$${salt.toString('base64')}$${hash.toString('base64')}`;
}

/** A client of the dynamic security plugin's file. */
export function dynamicSecurityClient(username, password, roles) {
    const salt = crypto.randomBytes(12);
    const iterations = 101;
    return {
        username,
        salt: salt.toString('base64'),
        password: crypto.pbkdf2Sync(password, salt, iterations, 64, 'sha512').toString('base64'),
        iterations,
        roles: roles.map((rolename) => ({ rolename })),
    };
}

/** Connects every user that the broker lets in. */
async function connectAll(broker, users, suffix) {
    const outcome = {};
    const clients = new Map();
    for (const [name, { listener = 0, version = 5, ...user }] of Object.entries(users)) {
        const client = new RawClient({ port: broker.ports[listener], version, clientId: `${name}${suffix}`, ...user });
        try {
            const connack = await client.connect();
            outcome[`${name} connects`] = connack.returnCode;
            if (connack.returnCode === 0) {
                clients.set(name, client);
            }
        } catch (error) {
            outcome[`${name} connects`] = 'closed';
        }
    }
    return { outcome, clients };
}

/** What came in on each connection since the last call; a connection that has been closed says so. */
async function received(client) {
    if (client.closed) {
        return ['(closed)'];
    }
    await client.ping().catch(() => {});
    return client.packets
        .splice(0)
        .filter((p) => p.type === 'publish')
        .map((p) => `${p.topic} ${p.payload}`);
}

async function subscribe(client, filter) {
    try {
        return (await client.subscribe(filter)).codes[0];
    } catch {
        return 'closed';
    }
}

async function publish(client, topic, payload, options) {
    if (client.closed) {
        return 'closed';
    }
    const id = client.publish(topic, payload, { qos: 1, ...options });
    try {
        const { reasonCode } = await client.next('puback', (p) => p.id === id);
        return reasonCode === 0x10 ? 0 : reasonCode; // "no subscribers" is no refusal
    } catch {
        return 'closed';
    }
}

/**
 * @param {import('./broker.mjs').Broker} broker
 * @param {Record<string, {username?, password?, listener?: number, version?: 4|5}>} users
 * @param {string[]} topics published to, and subscribed to one at a time
 * @param {string[]} filters with wildcards, also subscribed to, all topics being published
 * @returns {Promise<Record<string, any>>} what was tried -> what came of it
 */
export async function whoMayWhat(broker, users, topics, filters = []) {
    const { outcome, clients } = await connectAll(broker, users, '');
    const readers = await connectAll(broker, users, '-reads');
    Object.assign(outcome, readers.outcome);
    let n = 0;
    for (const [reader, client] of readers.clients) {
        for (const filter of [...topics, ...filters]) {
            outcome[`${reader} subscribes to ${filter}`] = await subscribe(client, filter);
        }
    }
    for (const [writer, client] of clients) {
        for (const topic of topics) {
            for (const retain of [false, true]) {
                const payload = `p${++n}`;
                outcome[`${writer} publishes ${retain ? 'retained ' : ''}to ${topic}`] = await publish(
                    client,
                    topic,
                    payload,
                    { retain },
                );
                for (const [reader, other] of readers.clients) {
                    outcome[`${reader} gets what ${writer} ${retain ? 'retained in' : 'sent to'} ${topic}`] =
                        await received(other);
                }
            }
        }
    }
    const late = await connectAll(broker, users, '-late');
    for (const [name, client] of late.clients) {
        await subscribe(client, '#');
        for (const topic of topics) {
            await subscribe(client, topic);
        }
        outcome[`${name} finds retained`] = [
            ...new Set((await received(client)).filter((text) => !text.startsWith('$SYS'))),
        ].sort();
    }
    for (const client of [...clients.values(), ...readers.clients.values(), ...late.clients.values()]) {
        client.destroy();
    }
    return outcome;
}

/**
 * On a broker with the plugin: who gets a record written by cmd, and who gets its event.
 * @returns {Promise<Record<string, boolean>>} 'ana writes' and 'ana reads', by what happened
 */
export async function whoWritesAndReads(broker, users, admin, collection) {
    const { clients } = await connectAll(broker, users, '-w');
    const readers = await connectAll(broker, users, '-r');
    const outcome = {};
    const boss = new RawClient({ port: broker.ports[admin.listener ?? 0], version: 5, clientId: 'boss', ...admin });
    await boss.connect();
    for (const client of readers.clients.values()) {
        await subscribe(client, `sync/${collection}/evt/#`);
    }
    for (const [name, client] of clients) {
        await publish(client, `sync/${collection}/cmd/by-${name}/insert`, '{}');
        await publish(client, `sync/${collection}/cmd`, `{"type":"insert","recordId":"long-by-${name}","data":{}}`);
    }
    boss.publish(`sync/${collection}/cmd`, '{"type":"sync"}', { qos: 1 });
    const page = JSON.parse((await boss.next('publish', (p) => p.payload.includes('"sync"'))).payload);
    const ids = page.data.records.map((r) => r.id);
    for (const name of clients.keys()) {
        outcome[`${name} writes`] = [ids.includes(`by-${name}`), ids.includes(`long-by-${name}`)];
    }
    const id = await publish(boss, `sync/${collection}/cmd/by-boss/insert`, '{}');
    outcome['the administrator writes'] = id === 0;
    for (const [name, client] of readers.clients) {
        outcome[`${name} reads`] = (await received(client)).some((text) =>
            text.startsWith(`sync/${collection}/evt/by-boss `),
        );
    }
    for (const client of [...clients.values(), ...readers.clients.values(), boss]) {
        client.destroy();
    }
    return outcome;
}
