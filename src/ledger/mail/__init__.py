"""Mails to the people who are billed: made with the event they are about, sent by a job, once."""
