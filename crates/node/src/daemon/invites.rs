//! Invitations that were given out. They live as long as the daemon that gave them.

use std::time::Duration;

use brigade_wire::NodeKey;
use brigade_wire::token::{Proof, Side, TokenId, TokenSecret};
use ring::rand::{SecureRandom, SystemRandom};

use super::message::Refusal;

/// No more are remembered; the oldest go first.
const LIMIT: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Invites(Vec<Invite>);

#[derive(Debug)]
struct Invite {
    secret: TokenSecret,
    /// Since the daemon's start.
    expires: Duration,
    used: bool,
}

impl Invites {
    /// Makes one that expires at this time since the daemon's start.
    ///
    /// # Panics
    ///
    /// If the operating system has no randomness.
    pub(super) fn make(&mut self, expires: Duration) -> TokenSecret {
        let mut secret = [0; 16];
        SystemRandom::new()
            .fill(&mut secret)
            .expect("the operating system gives random bytes");
        if self.0.len() == LIMIT {
            self.0.remove(0);
        }
        self.0.push(Invite {
            secret: TokenSecret(secret),
            expires,
            used: false,
        });
        TokenSecret(secret)
    }

    /// Checks a joining node's proof; the invitation is not used up by that. Whoever cannot prove
    /// the secret does not learn whether there is such a token.
    pub(super) fn check(
        &self,
        token: TokenId,
        proof: Proof,
        binding: &[u8; 32],
        joiner: NodeKey,
        inviter: NodeKey,
        now: Duration,
    ) -> Result<TokenSecret, Refusal> {
        let invite = self
            .0
            .iter()
            .find(|invite| invite.secret.id() == token)
            .filter(|invite| invite.secret.proof(Side::Joiner, binding, joiner, inviter) == proof)
            .ok_or(Refusal::UnknownToken)?;
        if invite.used {
            return Err(Refusal::UsedToken);
        }
        if now >= invite.expires {
            return Err(Refusal::ExpiredToken);
        }
        Ok(invite.secret)
    }

    /// Uses an invitation up.
    pub(super) fn spend(&mut self, secret: TokenSecret) {
        for invite in &mut self.0 {
            invite.used |= invite.secret == secret;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOINER: NodeKey = NodeKey([1; 32]);
    const INVITER: NodeKey = NodeKey([2; 32]);
    const BINDING: [u8; 32] = [3; 32];

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_token_is_good_once_in_time_and_on_its_own_connection() {
        let mut invites = Invites::default();
        let (first, second) = (invites.make(s(10)), invites.make(s(20)));
        assert_ne!(first, second);
        let check = |invites: &Invites, secret: TokenSecret, binding: [u8; 32], now| {
            let proof = secret.proof(Side::Joiner, &binding, JOINER, INVITER);
            invites.check(secret.id(), proof, &BINDING, JOINER, INVITER, now)
        };
        assert_eq!(check(&invites, first, BINDING, s(9)), Ok(first));
        assert_eq!(
            check(&invites, first, BINDING, s(10)),
            Err(Refusal::ExpiredToken)
        );
        assert_eq!(
            check(&invites, second, [4; 32], s(9)),
            Err(Refusal::UnknownToken)
        );
        let foreign = TokenSecret([9; 16]);
        assert_eq!(
            check(&invites, foreign, BINDING, s(9)),
            Err(Refusal::UnknownToken)
        );
        // The right id with another secret's proof.
        let proof = foreign.proof(Side::Joiner, &BINDING, JOINER, INVITER);
        assert_eq!(
            invites.check(second.id(), proof, &BINDING, JOINER, INVITER, s(9)),
            Err(Refusal::UnknownToken)
        );
        // The inviter's own proof, sent back.
        let proof = second.proof(Side::Inviter, &BINDING, JOINER, INVITER);
        assert_eq!(
            invites.check(second.id(), proof, &BINDING, JOINER, INVITER, s(9)),
            Err(Refusal::UnknownToken)
        );
        invites.spend(second);
        assert_eq!(
            check(&invites, second, BINDING, s(9)),
            Err(Refusal::UsedToken)
        );
        assert_eq!(check(&invites, first, BINDING, s(9)), Ok(first));
    }
}
