// Conversations in this browser's IndexedDB. The server keeps none.

const NAME = "mgs-chats";
let opened = null;

function open() {
  opened ??= new Promise((resolve, reject) => {
    const asked = indexedDB.open(NAME, 1);
    asked.onupgradeneeded = () => {
      asked.result.createObjectStore("conversations", { keyPath: "id" });
      const messages = asked.result.createObjectStore("messages", { keyPath: "id" });
      messages.createIndex("conversation", "conversation");
      messages.createIndex("status", "status");
    };
    asked.onsuccess = () => resolve(asked.result);
    asked.onerror = () => reject(asked.error);
  });
  return opened;
}

async function run(mode, call) {
  const db = await open();
  return new Promise((resolve, reject) => {
    const transaction = db.transaction(["conversations", "messages"], mode);
    const asked = call((name) => transaction.objectStore(name));
    transaction.oncomplete = () => resolve(asked?.result);
    transaction.onerror = transaction.onabort = () => reject(transaction.error);
  });
}

export const allConversations = () => run("readonly", (store) => store("conversations").getAll());
export const conversation = (id) => run("readonly", (store) => store("conversations").get(id));
export const message = (id) => run("readonly", (store) => store("messages").get(id));
export const messagesOf = (id) => run("readonly", (store) => store("messages").index("conversation").getAll(id));
export const allMessages = () => run("readonly", (store) => store("messages").getAll());
export const openAnswers = () => run("readonly", (store) => store("messages").index("status").getAll("streaming"));

/** Writes conversations and messages in one transaction. */
export const put = ({ conversations = [], messages = [] }) =>
  run("readwrite", (store) => {
    for (const one of conversations) store("conversations").put(one);
    for (const one of messages) store("messages").put(one);
  });

export async function remove(id) {
  const messages = await messagesOf(id);
  await run("readwrite", (store) => {
    store("conversations").delete(id);
    for (const one of messages) store("messages").delete(one.id);
  });
}

export const removeAll = () =>
  run("readwrite", (store) => {
    store("conversations").clear();
    store("messages").clear();
  });
