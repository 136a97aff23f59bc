// Wallet keys of this browser: IndexedDB holds the pairs, no script can read the private halves.

const open = () =>
  new Promise((resolve, reject) => {
    const asked = indexedDB.open("flai-keys", 1);
    asked.onupgradeneeded = () => asked.result.createObjectStore("keys");
    asked.onsuccess = () => resolve(asked.result);
    asked.onerror = () => reject(asked.error);
  });

const within = async (mode, work) => {
  const db = await open();
  try {
    return await new Promise((resolve, reject) => {
      const transaction = db.transaction("keys", mode);
      const asked = work(transaction.objectStore("keys"));
      transaction.oncomplete = () => resolve(asked.result);
      transaction.onerror = transaction.onabort = () => reject(transaction.error);
    });
  } finally {
    db.close();
  }
};

// Keep a pair under its public key; it is stored when this resolves.
export const keep = (key, pair) => within("readwrite", (store) => store.put(pair, key));

// The pair of a public key, or undefined.
export const pairOf = (key) => within("readonly", (store) => store.get(key));
