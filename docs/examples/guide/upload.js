// Sends a file (or a Blob) in slices of 256 KiB, and returns the id of the upload.
async function upload(socket, file, progress = () => {}) {
  const id = crypto.randomUUID();
  let start = 0;
  while (start < file.size) {
    try {
      const part = await file.slice(start, start + 262144).arrayBuffer();
      const ack = await socket.timeout(10000).emitWithAck("upload slice", id, start, part);
      if (ack.error) throw new TypeError(ack.error);
      start = ack.size;
    } catch (error) {
      if (error instanceof TypeError) throw error;
      // No ack: the connection was lost.  When it is back, ask where to go on.
      start = await socket.timeout(60000).emitWithAck("upload size", id);
    }
    progress(start / file.size);
  }
  return id;
}
