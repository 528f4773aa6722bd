//! HTTP/1.1 with as little work as possible, so that the generator takes little of the cores that it shares.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::Failure;

/// What is spoken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Wire {
    /// HTTP/1.1.
    #[default]
    Http,
    /// That of Redis; with the name of a script that it knows.
    Redis(String),
}

/// A kept-alive connection.
pub struct Connection {
    wire: Wire,
    stream: TcpStream,
    buffer: Vec<u8>,
    /// Bytes at the buffer's start that were handed out as a line.
    read: usize,
}

impl Connection {
    /// Connects to what speaks `wire`.
    pub async fn open(address: SocketAddr, wire: Wire) -> Result<Self, Failure> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            wire,
            stream,
            buffer: Vec::with_capacity(64 * 1024),
            read: 0,
        })
    }

    /// Sends `request` and reads the whole answer: its status, and its body in place. Of Redis it is a line, and the status 200.
    pub async fn call(&mut self, request: &[u8]) -> Result<(u16, &[u8]), Failure> {
        self.stream.write_all(request).await?;
        if self.wire != Wire::Http {
            return Ok((200, self.line().await?));
        }
        self.buffer.clear();
        let head = loop {
            if let Some(end) = memchr::memmem::find(&self.buffer, b"\r\n\r\n") {
                break end + 4;
            }
            self.fill().await?;
        };
        let text = std::str::from_utf8(&self.buffer[..head])?;
        let status = text.get(9..12).ok_or("no status line")?.parse()?;
        let end = match Framing::of(text, status)? {
            Framing::Length(length) => head + length,
            Framing::Chunks => self.join_chunks(head).await?,
        };
        while self.buffer.len() < end {
            self.fill().await?;
        }
        Ok((status, &self.buffer[head..end]))
    }

    /// The next line, without its end.
    async fn line(&mut self) -> Result<&[u8], Failure> {
        self.buffer.drain(..self.read);
        self.read = 0;
        loop {
            if let Some(end) = memchr::memmem::find(&self.buffer, b"\r\n") {
                self.read = end + 2;
                return Ok(&self.buffer[..end]);
            }
            self.fill().await?;
        }
    }

    /// Moves what is in the chunks behind `head` together, and says where it ends.
    async fn join_chunks(&mut self, head: usize) -> Result<usize, Failure> {
        let (mut end, mut at) = (head, head);
        loop {
            let line = loop {
                if let Some(length) = memchr::memmem::find(&self.buffer[at..], b"\r\n") {
                    break at..at + length;
                }
                self.fill().await?;
            };
            let size = usize::from_str_radix(std::str::from_utf8(&self.buffer[line.clone()])?, 16)?;
            let begin = line.end + 2;
            while self.buffer.len() < begin + size + 2 {
                self.fill().await?;
            }
            self.buffer.copy_within(begin..begin + size, end);
            end += size;
            at = begin + size + 2;
            if size == 0 {
                return Ok(end);
            }
        }
    }

    async fn fill(&mut self) -> Result<(), Failure> {
        if self.stream.read_buf(&mut self.buffer).await? == 0 {
            return Err("the server closed the connection".into());
        }
        Ok(())
    }
}

/// How the end of a body is told.
enum Framing {
    /// By its length.
    Length(usize),
    /// By an empty chunk behind others.
    Chunks,
}

impl Framing {
    fn of(head: &str, status: u16) -> Result<Self, Failure> {
        if let Some(length) = head.lines().find_map(length_of) {
            return Ok(Self::Length(length));
        }
        let chunked = head
            .lines()
            .any(|line| line.eq_ignore_ascii_case("transfer-encoding: chunked"));
        match status {
            _ if chunked => Ok(Self::Chunks),
            204 => Ok(Self::Length(0)),
            _ => Err("the answer does not tell where it ends".into()),
        }
    }
}

fn length_of(line: &str) -> Option<usize> {
    let (name, value) = line.split_once(':')?;
    name.eq_ignore_ascii_case("content-length")
        .then(|| value.trim().parse().ok())?
}

/// A request with a body, whole.
pub fn request(method: &str, path: &str, api_key: &str, content_type: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {api_key}\r\ncontent-type: {content_type}\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    bytes
}
