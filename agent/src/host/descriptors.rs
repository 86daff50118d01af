//! Open files that one process gives another over a unix socket (unix(7), SCM_RIGHTS).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// Most descriptors in one message.
const MOST: usize = 8;
/// Longest message beside them, in bytes.
const MAX_MESSAGE: usize = 1024;

/// Sends a message of 1 to 1,024 bytes and copies of up to 8 descriptors, in one piece.
///
/// # Errors
/// When there are more, and when the other side is gone.
pub async fn send_descriptors(stream: &UnixStream, message: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let send = || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if descriptors.len() > MOST || !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::Error::other(format!(
                "at most {MOST} descriptors go into a message"
            )));
        }
        let sent = sendmsg(stream, &[IoSlice::new(message)], &mut control, SendFlags::NOSIGNAL)?;
        match sent == message.len() && sent <= MAX_MESSAGE {
            true => Ok(()),
            false => Err(io::Error::other("the message is too long")),
        }
    };
    stream.async_io(Interest::WRITABLE, send).await
}

/// Receives what [`send_descriptors`] sent in one piece.
///
/// # Errors
/// When the other side is gone, or sent more than fits.
pub async fn receive_descriptors(stream: &UnixStream) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let receive = || {
        let mut message = vec![0; MAX_MESSAGE];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = recvmsg(
            stream,
            &mut [IoSliceMut::new(&mut message)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )?;
        if received.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        message.truncate(received.bytes);
        let descriptors = control.drain().flat_map(|part| match part {
            RecvAncillaryMessage::ScmRights(descriptors) => descriptors.collect(),
            _ => Vec::new(),
        });
        Ok((message, descriptors.collect()))
    };
    stream.async_io(Interest::READABLE, receive).await
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsFd;

    use super::*;

    #[tokio::test]
    async fn descriptor_that_is_sent_is_the_same_file() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (mut reader, writer) = io::pipe().unwrap();
        send_descriptors(&ours, b"shop", &[writer.as_fd()]).await.unwrap();
        drop(writer);
        let (message, descriptors) = receive_descriptors(&theirs).await.unwrap();
        assert_eq!(message, b"shop");
        for descriptor in descriptors {
            io::PipeWriter::from(descriptor).write_all(b"x").unwrap();
        }
        let mut read = String::new();
        reader.read_to_string(&mut read).unwrap();
        assert_eq!(read, "x");
    }

    #[tokio::test]
    async fn too_many_descriptors_and_an_end_are_errors() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let many = [ours.as_fd(); MOST + 1];
        assert!(send_descriptors(&ours, b"x", &many).await.is_err());
        drop(ours);
        let error = receive_descriptors(&theirs).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
