// SPDX-License-Identifier: BSD-3-Clause
// Clients of every kind with one face: they write, follow collections, and keep what they were sent of them.
import { request } from './http.mjs';
import { withDelta } from './reference.mjs';

const isAnswer = (m) => m.type === 'ack' || m.type === 'error' || m.metadata?.conflict === true;
const isChange = (m) => ['insert', 'update', 'delete', 'sync'].includes(m.type) && !m.metadata.conflict;
const message = ({ type, collection, recordId, data, timestamp, metadata }) => ({ type, collection, recordId, data, timestamp, metadata });

/** What a follower has of a collection. */
class Following {
    records = new Map();
    seq = 0;

    takePages({ pages, seq, epoch }, resumed) {
        Object.assign(this, { seq, epoch });
        if (!resumed) {
            this.records.clear();
        }
        for (const { data } of pages) {
            data.records.forEach((r) => this.records.set(r.id, { version: r.version, data: r.data }));
            data.deleted?.forEach((r) => this.records.delete(r.id));
        }
    }

    /** The data after an event; `full`: an update has all of it. */
    takeEvent({ type, recordId, data, metadata }, full) {
        this.seq = metadata.seq;
        const have = this.records.get(recordId);
        if (type === 'delete') {
            this.records.delete(recordId);
        } else {
            this.records.set(recordId, { version: metadata.version, data: type === 'insert' || full ? data : withDelta(have?.data, data) });
        }
        return this.records.get(recordId)?.data;
    }
}

class Peer {
    user = null;
    forms = ['long'];
    qos = [1];
    follows = new Map();

    constructor(world, name, options) {
        Object.assign(this, { world, name }, options);
    }

    get connected() {
        return Boolean(this.client) && !this.client.closed;
    }

    /** The subscriptions that are on. */
    get following() {
        return this.connected ? [...this.follows].filter(([, f]) => !f.off) : [];
    }

    /** Subscribes, going on from what it has when `resume`; resolves with {subscribed, pages}. */
    async follow(collection, resume) {
        const following = this.follows.get(collection) ?? new Following();
        const metadata = { ...(resume && { since: following.seq, epoch: following.epoch }), ...(this.full && { updates: 'full' }) };
        const answer = await this.subscribe(collection, metadata);
        following.takePages(answer, resume);
        following.off = false;
        this.follows.set(collection, following);
        return answer;
    }
}

export class MqttPeer extends Peer {
    async connect() {
        const { version = 4, user, tunnel, world } = this;
        this.client = await world.broker.client({ version, username: user ?? undefined, url: tunnel && world.bridge.url('/mqtt') });
    }

    get seesOwn() {
        return !this.noLocal;
    }

    /** Resolves once all is here that the write made the server send to this client. */
    async send(w) {
        const properties = w.responseTopic && { properties: { responseTopic: w.responseTopic } };
        this.client.answerTopics.add(w.responseTopic);
        const reason = await this.client.write(w.form, message(w), { qos: w.qos, ...properties });
        await this.client.settle(w.collection, { qos: w.qos });
        return { reason };
    }

    answers() {
        const all = this.client.answers.splice(0);
        this.client.answers.push(...all.filter((m) => !isAnswer(m.json)));
        return all.map((m) => m.json).filter(isAnswer);
    }

    next(collection) {
        const fits = (m) => m.json.collection === collection && isChange(m.json);
        return this.full ? this.client.answer(fits) : this.client.event(fits);
    }

    async subscribe(collection, metadata) {
        if (!this.full) {
            await this.client.subscribe(`sync/${collection}/evt/#`, { qos: 1, ...(this.noLocal && { nl: true }) });
        }
        await this.client.cmd(collection, { type: 'subscribe', metadata });
        const subscribed = await this.client.answer({ type: 'subscribed', collection });
        const pages = metadata.epoch || subscribed.metadata.recordCount;
        return { subscribed, pages: [], ...subscribed.metadata, ...(pages && await this.client.pages(collection)) };
    }

    async unfollow(collection) {
        await this.client.unsubscribe(`sync/${collection}/evt/#`);
        await this.client.cmd(collection, { type: 'unsubscribe', collection });
        await this.client.answer({ type: 'unsubscribed', collection });
        this.follows.get(collection).off = true;
    }

    /** What nobody has asked for and was sent all the same. */
    async unread() {
        await this.client.settle();
        return [...this.client.events, ...this.client.answers].map((m) => m.json);
    }

    leave(politely) {
        return politely ? this.client.close() : this.client.drop();
    }
}

export class WsPeer extends Peer {
    seesOwn = false;

    async connect() {
        this.client = await this.world.bridge.client(`/ws?token=${this.world.token(this.user)}`);
    }

    async send(w) {
        this.client.send(message(w));
        await this.client.write('insert', 'ready', this.name, {});
        return {};
    }

    answers() {
        const all = this.client.messages.splice(0);
        this.client.messages.push(...all.filter((m) => !isAnswer(m)));
        this.client.taken++;
        this.client.texts.length = 0;
        return all.filter(isAnswer);
    }

    next(collection) {
        return this.client.take((m) => m.collection === collection && isChange(m));
    }

    subscribe(collection, metadata) {
        return this.client.subscribe(collection, metadata);
    }

    async unfollow(collection) {
        this.client.send({ type: 'unsubscribe', collection });
        await this.client.take({ type: 'unsubscribed', collection });
        this.follows.get(collection).off = true;
    }

    async unread() {
        await this.client.write('insert', 'ready', this.name, {});
        return this.client.messages;
    }

    async leave(politely) {
        this.world.bridge.clients.delete(this.client);
        this.client.socket[politely ? 'close' : 'terminate']();
        await this.client.waitClosed();
    }
}

export class HttpPeer extends Peer {
    connected = true;
    following = [];

    connect() {}

    #request(method, path, body) {
        return request(this.world.bridge, method, path, { body, headers: { authorization: `Bearer ${this.world.token(this.user)}` } });
    }

    async send({ type, collection, recordId, data, timestamp, metadata }) {
        const one = `/sync/${collection}/${recordId}`;
        const [method, path, what] = {
            insert: ['POST', `/sync/${collection}`, { recordId, data }],
            update: ['PATCH', one, { delta: data }],
            delete: ['DELETE', one, {}],
        }[type];
        return { http: await this.#request(method, path, { ...what, timestamp, ...metadata }) };
    }

    async records(path) {
        return (await this.#request('GET', path)).body.records ?? [];
    }
}
